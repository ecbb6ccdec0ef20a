-- What happened stays what happened: the outbox and the saga's diary are append-only.

CREATE FUNCTION payments_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % refused: append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = '23514';
END $$;

CREATE TRIGGER event_append_only BEFORE UPDATE OR DELETE ON payments_event
    FOR EACH ROW EXECUTE FUNCTION payments_refuse_change();
CREATE TRIGGER saga_event_append_only BEFORE UPDATE OR DELETE ON payments_sagaevent
    FOR EACH ROW EXECUTE FUNCTION payments_refuse_change();

-- A saga's row is written anew at each turn: room on its page keeps the new version out of the indexes.
ALTER TABLE payments_sagarun SET (fillfactor = 70);
