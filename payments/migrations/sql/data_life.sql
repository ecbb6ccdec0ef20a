-- The outbox stays append-only, but for two things that say so in their own transaction: the purge deletes what is
-- older than its retention (never what is younger than 90 days), and an erasure on request blanks an event's text.

CREATE FUNCTION payments_guard_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    purpose text := current_setting('countinghouse.data_life', true);
BEGIN
    IF TG_OP = 'DELETE' AND purpose = 'purge' AND OLD.created_at < now() - interval '90 days' THEN
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' AND purpose = 'erase' AND to_jsonb(NEW) - 'data' = to_jsonb(OLD) - 'data' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% on % refused: append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = '23514';
END $$;

DROP TRIGGER event_append_only ON payments_event;
CREATE TRIGGER event_append_only BEFORE UPDATE OR DELETE ON payments_event
    FOR EACH ROW EXECUTE FUNCTION payments_guard_event();
