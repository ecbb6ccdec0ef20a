-- Closed days. Whoever dates an entry shares the lock of that account and day until he commits; who closes days takes
-- theirs alone. So a closing sees every entry of its days, and an entry sees every closing, while the postings of
-- today never wait for the closing of last month.

CREATE FUNCTION ledger_day_lock(account varchar, day date) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT hashtextextended('ledger ' || account || ' ' || (day - DATE '2000-01-01'), 0)
$$;

-- Row versions are seen as of a transaction's beginning in any other mode: a closing since then would be missed.
CREATE FUNCTION ledger_require_read_committed() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the ledger is written in READ COMMITTED transactions only' USING ERRCODE = '23514';
    END IF;
END $$;

-- The first open day from the wanted one on, under its lock; `late` says why it is another one.
CREATE FUNCTION ledger_open_day(account varchar, wanted date, OUT day date, OUT late text) LANGUAGE plpgsql AS $$
DECLARE
    last_closed date;
BEGIN
    day := wanted;
    LOOP
        PERFORM pg_advisory_xact_lock_shared(ledger_day_lock(account, day));
        SELECT period.last_day INTO last_closed FROM payments_ledgerperiod AS period
            WHERE period.gateway_account_id = account AND period.reopened_at IS NULL
                AND day BETWEEN period.first_day AND period.last_day;
        EXIT WHEN NOT FOUND;
        day := last_closed + 1;
    END LOOP;
    IF day <> wanted THEN
        late := 'Late: of ' || wanted || ', which is closed. ';
    END IF;
END $$;

CREATE FUNCTION ledger_refuse_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM ledger_require_read_committed();
    END IF;
    PERFORM pg_advisory_xact_lock_shared(ledger_day_lock(NEW.gateway_account_id, NEW.booked_on));
    IF EXISTS (
        SELECT 1 FROM payments_ledgerperiod WHERE gateway_account_id = NEW.gateway_account_id
            AND reopened_at IS NULL AND NEW.booked_on BETWEEN first_day AND last_day
    ) THEN
        RAISE EXCEPTION 'ledger entry of %: that day is closed', NEW.booked_on USING ERRCODE = '23514';
    END IF;
    -- One day of grace: the clocks of the application and of the database may differ around midnight.
    IF NEW.booked_on > (clock_timestamp() AT TIME ZONE 'UTC')::date + 1 THEN
        RAISE EXCEPTION 'ledger entry of %: that day is still to come', NEW.booked_on USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER ledger_entry_open_day BEFORE INSERT ON payments_ledgerentry
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_closed();

-- The posting's seal, its currency and its book in one look; the day is its entry's, whatever was written.
CREATE OR REPLACE FUNCTION ledger_refuse_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_open boolean;
    is_same_currency boolean;
    is_same_book boolean;
BEGIN
    SELECT entry.transaction_id = pg_current_xact_id(), account.currency = NEW.currency,
            account.gateway_account_id = entry.gateway_account_id, entry.booked_on
        INTO is_open, is_same_currency, is_same_book, NEW.booked_on
        FROM payments_ledgerentry AS entry, payments_ledgeraccount AS account
        WHERE entry.id = NEW.entry_id AND account.id = NEW.account_id;
    IF is_open AND is_same_currency AND is_same_book THEN
        RETURN NEW;
    END IF;
    IF NOT is_open THEN
        RAISE EXCEPTION 'ledger entry % is sealed', NEW.entry_id USING ERRCODE = '23514';
    END IF;
    IF is_same_currency AND NOT is_same_book THEN
        RAISE EXCEPTION 'posting of entry % on an account of another gateway account', NEW.entry_id
            USING ERRCODE = '23514';
    END IF;
    IF NOT is_same_currency THEN
        RAISE EXCEPTION 'posting in % on an account of another currency', NEW.currency USING ERRCODE = '23514';
    END IF;
    RAISE EXCEPTION 'posting without an entry or an account' USING ERRCODE = '23514';
END $$;

-- What a range of days of a book holds: how many postings, and a sum over a digest of each.
CREATE FUNCTION ledger_digest(book varchar, first_day date, last_day date, OUT postings bigint, OUT digest numeric)
LANGUAGE sql STABLE AS $$
    SELECT count(*), coalesce(sum(hashtextextended(
            concat_ws(':', posting.id, posting.entry_id, posting.account_id, posting.amount), 0)::numeric), 0)
    FROM payments_ledgeraccount AS account
    JOIN payments_posting AS posting ON posting.account_id = account.id
    WHERE account.gateway_account_id = book AND posting.booked_on BETWEEN first_day AND last_day
$$;

CREATE FUNCTION ledger_close_days() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    suspense record;
BEGIN
    PERFORM ledger_require_read_committed();
    IF NEW.reopened_at IS NOT NULL THEN
        RAISE EXCEPTION 'a period begins closed' USING ERRCODE = '23514';
    END IF;
    IF NEW.last_day >= (clock_timestamp() AT TIME ZONE 'UTC')::date THEN
        RAISE EXCEPTION 'the period ends %: only days that are over are closed', NEW.last_day USING ERRCODE = '23514';
    END IF;
    IF NEW.last_day - NEW.first_day > 366 THEN
        RAISE EXCEPTION 'a period has at most a year' USING ERRCODE = '23514';
    END IF;
    PERFORM pg_advisory_xact_lock(ledger_day_lock(NEW.gateway_account_id, day::date))
        FROM generate_series(NEW.first_day, NEW.last_day, interval '1 day') AS day;
    IF EXISTS (
        SELECT 1 FROM payments_ledgerperiod WHERE gateway_account_id = NEW.gateway_account_id
            AND reopened_at IS NULL AND first_day <= NEW.last_day AND last_day >= NEW.first_day
    ) THEN
        RAISE EXCEPTION 'a part of % to % is closed already', NEW.first_day, NEW.last_day USING ERRCODE = '23514';
    END IF;
    SELECT account.currency, sum(posting.amount) AS total INTO suspense
        FROM payments_ledgeraccount AS account JOIN payments_posting AS posting ON posting.account_id = account.id
        WHERE account.gateway_account_id = NEW.gateway_account_id AND account.code = 1900
            AND posting.booked_on <= NEW.last_day
        GROUP BY account.currency HAVING sum(posting.amount) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'suspense holds % %', suspense.total, suspense.currency USING ERRCODE = '23514';
    END IF;
    SELECT found.postings, found.digest INTO NEW.postings, NEW.digest
        FROM ledger_digest(NEW.gateway_account_id, NEW.first_day, NEW.last_day) AS found;
    RETURN NEW;
END $$;

CREATE TRIGGER ledger_period_close BEFORE INSERT ON payments_ledgerperiod
    FOR EACH ROW EXECUTE FUNCTION ledger_close_days();

-- A closing stays on record: it may only be marked as reopened, once.
CREATE FUNCTION ledger_keep_period() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.reopened_at IS NULL AND NEW.reopened_at IS NOT NULL
        AND (OLD.id, OLD.gateway_account_id, OLD.first_day, OLD.last_day, OLD.closed_at, OLD.closed_by, OLD.note,
            OLD.postings, OLD.digest)
        IS NOT DISTINCT FROM (NEW.id, NEW.gateway_account_id, NEW.first_day, NEW.last_day, NEW.closed_at,
            NEW.closed_by, NEW.note, NEW.postings, NEW.digest)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% on % refused: a closing stays on record', TG_OP, TG_TABLE_NAME USING ERRCODE = '23514';
END $$;

CREATE TRIGGER ledger_period_kept BEFORE UPDATE OR DELETE ON payments_ledgerperiod
    FOR EACH ROW EXECUTE FUNCTION ledger_keep_period();
CREATE TRIGGER ledger_period_no_truncate BEFORE TRUNCATE ON payments_ledgerperiod
    EXECUTE FUNCTION ledger_keep_period();
