-- The ledger's law. An entry balances per currency, has at least two postings, is sealed when its transaction
-- commits, and is never changed or deleted.

ALTER TABLE payments_ledgerentry
    ADD COLUMN transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id();

CREATE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % refused: the ledger is append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = '23514';
END $$;

CREATE TRIGGER ledger_entry_append_only BEFORE UPDATE OR DELETE ON payments_ledgerentry
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_posting_append_only BEFORE UPDATE OR DELETE ON payments_posting
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_entry_no_truncate BEFORE TRUNCATE ON payments_ledgerentry
    EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_posting_no_truncate BEFORE TRUNCATE ON payments_posting
    EXECUTE FUNCTION ledger_refuse_change();

-- pg_current_xact_id() is the top-level transaction, so savepoints do not break the seal.
CREATE FUNCTION ledger_refuse_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM payments_ledgerentry WHERE id = NEW.entry_id AND transaction_id = pg_current_xact_id()
    ) THEN
        RAISE EXCEPTION 'ledger entry % is sealed', NEW.entry_id USING ERRCODE = '23514';
    END IF;
    IF NOT EXISTS (
        SELECT 1 FROM payments_ledgeraccount WHERE id = NEW.account_id AND currency = NEW.currency
    ) THEN
        RAISE EXCEPTION 'posting in % on an account of another currency', NEW.currency USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER ledger_posting_sealed BEFORE INSERT ON payments_posting
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_sealed();

CREATE FUNCTION ledger_check_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM payments_posting WHERE entry_id = NEW.id) < 2 THEN
        RAISE EXCEPTION 'ledger entry % has fewer than two postings', NEW.id USING ERRCODE = '23514';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER ledger_entry_not_empty AFTER INSERT ON payments_ledgerentry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_check_entry();

CREATE FUNCTION ledger_check_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    unbalanced record;
BEGIN
    SELECT currency, sum(amount) AS total INTO unbalanced FROM payments_posting
        WHERE entry_id = NEW.entry_id GROUP BY currency HAVING sum(amount) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'ledger entry % does not balance: % %', NEW.entry_id, unbalanced.currency, unbalanced.total
            USING ERRCODE = '23514';
    END IF;
    RETURN NULL;
END $$;

-- On every posting, not once per entry: SET CONSTRAINTS IMMEDIATE would let a later posting of the same
-- transaction pass a check that had already run.
CREATE CONSTRAINT TRIGGER ledger_posting_balanced AFTER INSERT ON payments_posting
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_check_balance();
