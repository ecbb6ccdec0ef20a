-- Scratch for rows on their way in. Unlogged: after a crash of the server it is empty and is filled again.
CREATE UNLOGGED TABLE reconciliation_staging (
    file_id bigint NOT NULL,
    line integer NOT NULL,
    external_id text NOT NULL,
    kind text NOT NULL,
    category text NOT NULL,
    reference text NOT NULL,
    payment_reference text NOT NULL,
    amount bigint NOT NULL,
    currency text NOT NULL,
    gross bigint NOT NULL,
    fee bigint NOT NULL,
    net bigint NOT NULL,
    settlement_currency text NOT NULL,
    created_at timestamptz NOT NULL,
    available_on date,
    payout_id text NOT NULL,
    source_id text NOT NULL,
    description text NOT NULL,
    our_payment_id text NOT NULL,
    our_operation_id text NOT NULL
);
