-- Every entry has the day it belongs to: for those that are here already, the UTC day of their creation. A change of
-- type writes the table anew without its triggers, which refuse any update.
ALTER TABLE payments_ledgerentry
    ALTER COLUMN booked_on TYPE date USING (created_at AT TIME ZONE 'UTC')::date;

ALTER TABLE payments_posting DISABLE TRIGGER ledger_posting_append_only;
UPDATE payments_posting AS posting SET booked_on = entry.booked_on
FROM payments_ledgerentry AS entry WHERE entry.id = posting.entry_id AND entry.booked_on <> posting.booked_on;
ALTER TABLE payments_posting ENABLE TRIGGER ledger_posting_append_only;
