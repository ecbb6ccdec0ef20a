"""Stripe's reports are read by header name, exactly, and what cannot be read is said with its line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.money import Money
from reconciliation.parsers import BadRow, ReportFormatError, ReportRow, RowKind, find_parser
from reconciliation.parsers.stripe import parse_stripe_report
from tests.factories.reconciliation import DAY, Report, write_csv

# Rows as real exports have them: amounts with few digits, blanks, currency in lower case.
PAYOUT_REPORT = b"""\
balance_transaction_id,source_id,payment_intent_id,charge_id,created,available_on,automatic_payout_effective_at,\
currency,gross,fee,net,reporting_category,automatic_payout_id,customer_facing_amount,customer_facing_currency
txn_001,ch_123,pi_123,ch_123,2026-01-30 10:11:12,2026-01-30 00:00:00,2026-01-31 00:00:00,USD,25,0.95,24.05,charge,\
po_test123,25,usd
txn_rfnd_002,re_123,pi_123,ch_123,2026-01-30 12:30:00,2026-01-30 00:00:00,2026-01-31 00:00:00,USD,-10,0,-10,refund,\
po_test123,-10,usd
txn_fee_01,,,,2026-01-30 12:30:00,2026-01-30 00:00:00,2026-01-31 00:00:00,USD,-0.5,0,-0.5,fee,po_test123,"",
txn_102,dp_bbb,pi_bbb,ch_bbb,2026-02-02 10:00:00,2026-02-02 00:00:00,2026-02-03 00:00:00,USD,-30.00,15.00,-45.00,\
dispute,po_def,-30.00,usd
txn_1Tj9,du_1Tc2b,pi_3TRX,ch_3TRX,2026-06-17 03:16:29,2026-06-17 00:00:00,,usd,3.35,0,3.35,dispute_reversal,,,
"""


def read(data: bytes, size: int = 0) -> list[ReportRow | BadRow]:
    pieces = [data[start : start + size] for start in range(0, len(data), size)] if size else [data]
    return list(parse_stripe_report(pieces))


def read_good(data: bytes) -> list[ReportRow]:
    rows = read(data)
    assert all(isinstance(row, ReportRow) for row in rows), rows
    return [row for row in rows if isinstance(row, ReportRow)]


def test_a_payout_report_is_read_row_by_row() -> None:
    charge, refund, fee, dispute, reversal = read_good(PAYOUT_REPORT)
    assert (charge.kind, charge.reference, charge.gross, charge.fee, charge.net) == (
        RowKind.CHARGE,
        "pi_123",
        2500,
        95,
        2405,
    )
    assert charge.created_at == datetime(2026, 1, 30, 10, 11, 12, tzinfo=UTC)
    assert (charge.available_on, charge.payout_id) == (date(2026, 1, 30), "po_test123")
    assert (refund.kind, refund.reference, refund.gross) == (RowKind.REFUND, "re_123", -1000)
    assert (fee.kind, fee.reference, fee.net) == (RowKind.FEE, "txn_fee_01", -50)
    assert (dispute.kind, dispute.net) == (RowKind.DISPUTE, -4500)
    assert (reversal.kind, reversal.currency) == (RowKind.DISPUTE, "USD")


def test_the_net_amounts_of_a_payout_sum_up_to_it() -> None:
    sums: dict[str, int] = defaultdict(int)
    for row in read_good(PAYOUT_REPORT):
        sums[row.payout_id] += row.net
    assert sums == {"po_test123": 1355, "po_def": -4500, "": 335}


@pytest.mark.parametrize("size", [1, 7, 64])
def test_it_does_not_matter_where_the_stream_is_cut(size: int) -> None:
    data = Report(DAY, rows=[{**row_of("charge", "12.50"), "description": "Mug, “large”\nblue"}]).build()
    assert read(data, size) == read(data)
    assert read_good(data)[0].description == "Mug, “large”\nblue"


def test_columns_may_come_in_any_order_with_others_between_and_a_byte_order_mark() -> None:
    report = Report(DAY, rows=[row_of("charge", "12.50")])
    shuffled = Report(DAY, rows=report.rows, columns=("card_brand", *reversed(report.columns), "zz"))
    assert read(b"\xef\xbb\xbf" + shuffled.build()) == read(report.build())


def test_windows_line_ends_are_line_ends() -> None:
    data = Report(DAY, rows=[row_of("charge", "12.50")]).build()
    assert read(data.replace(b"\n", b"\r\n")) == read(data)


def test_an_unknown_category_is_kept_as_unknown() -> None:
    [row] = read_good(Report(DAY, rows=[row_of("quantum_fee", "1.00")]).build())
    assert (row.kind, row.category) == (RowKind.UNKNOWN, "quantum_fee")


def test_a_converted_charge_is_compared_in_what_the_customer_saw() -> None:
    cells = {"customer_facing_amount": "1200", "customer_facing_currency": "jpy"}
    [row] = read_good(Report(DAY, rows=[{**row_of("charge", "7.35"), **cells}]).build())
    assert (row.amount, row.currency, row.gross, row.settlement_currency) == (1200, "JPY", 735, "EUR")


def test_our_ids_come_from_the_metadata() -> None:
    cells = {"payment_metadata[payment_id]": "pay_1", "payment_metadata[operation_id]": "op_1"}
    charge, refund = read_good(
        Report(DAY, rows=[{**row_of("charge", "1"), **cells}, {**row_of("refund", "-1"), **cells}]).build()
    )
    assert (charge.our_payment_id, charge.our_operation_id) == ("pay_1", "op_1")
    assert refund.our_operation_id == ""  # the payment's metadata names the charge


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"gross": "12,50"}, "'12,50' is not an amount"),
        ({"gross": "12.505", "net": "12.505"}, "not a whole number of minor units"),
        ({"gross": "NaN"}, "NaN is not"),
        ({"currency": "EURO"}, "not a payable ISO 4217 currency"),
        ({"net": "11.00"}, "net 11.00 is not gross 12.50 less fee 0"),
        ({"created_utc": "yesterday"}, "'yesterday' is not a time"),
        ({"created_utc": ""}, "is not a time"),
        ({"balance_transaction_id": ""}, "has no balance_transaction_id"),
        ({"description": "a\0b"}, "NUL"),
    ],
)
def test_a_bad_row_is_told_with_its_line_and_the_rest_goes_on(cells: dict[str, str], reason: str) -> None:
    good = row_of("charge", "12.50")
    first, bad, last = read(Report(DAY, rows=[good, {**good, **cells}, good]).build())
    assert isinstance(first, ReportRow)
    assert isinstance(bad, BadRow)
    assert bad.line == 3
    assert reason in bad.reason
    assert isinstance(last, ReportRow)


def test_a_line_of_the_wrong_width_in_the_middle_is_a_bad_row() -> None:
    lines = Report(DAY, rows=[row_of("charge", "12.50")]).build().splitlines(keepends=True)
    rows = read(lines[0] + b"a,b\n" + lines[1].rstrip(b"\n") + b",extra\n" + lines[1])
    assert [type(row) for row in rows] == [BadRow, BadRow, ReportRow]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"PK\x03\x04...", "spreadsheet"),
        (PAYOUT_REPORT.replace(b",", b";"), "not separated by commas"),
        (PAYOUT_REPORT.replace(b",", b"\t"), "not separated by commas"),
        (PAYOUT_REPORT.decode().encode("utf-16"), "not UTF-8"),
        (PAYOUT_REPORT + "txn_é".encode("latin-1"), "not UTF-8"),
        (PAYOUT_REPORT.replace(b"reporting_category", b"category"), "lacks the columns reporting_category"),
        (PAYOUT_REPORT.replace(b",created,", b",made,"), "lacks the column created_utc"),
        (PAYOUT_REPORT.replace(b"charge_id", b"currency"), "more than once"),
        (PAYOUT_REPORT[:-30], "cut off at line 6"),
        (PAYOUT_REPORT + b'txn_9,"never closed', "cut off or damaged"),
        (b"x" * (2 << 20), "no CSV report"),
    ],
)
def test_a_wrong_file_is_refused_as_a_whole(data: bytes, message: str) -> None:
    with pytest.raises(ReportFormatError, match=message):
        read(data)


def test_a_report_without_rows_is_a_quiet_day() -> None:
    assert read(Report(DAY).build()) == []


def test_a_gateway_without_a_parser_is_named() -> None:
    with pytest.raises(ReportFormatError, match="'acme'"):
        find_parser("acme")


def test_rows_are_given_out_before_the_file_has_ended() -> None:
    given_out: list[int] = []

    def chunks() -> Iterator[bytes]:
        data = Report(DAY, rows=[row_of("charge", "12.50")] * 50).build()
        for start in range(0, len(data), 200):
            given_out.append(start)
            yield data[start : start + 200]

    next(parse_stripe_report(chunks()))
    assert len(given_out) < 10


currencies = st.sampled_from(["EUR", "USD", "JPY", "KWD", "CLF"])


@given(
    st.lists(
        st.tuples(
            st.integers(-(10**12), 10**12),
            st.integers(0, 10**6),
            currencies,
            st.sampled_from(["charge", "refund", "fee", "partial_capture_reversal", "payout"]),
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20),
        ),
        max_size=8,
    ),
    st.integers(1, 300),
)
def test_what_is_written_is_what_is_read(rows: list[tuple[int, int, str, str, str]], size: int) -> None:
    report = Report(DAY)
    for gross, fee, currency, category, description in rows:
        report.add(category, gross, currency, fee, description=description)
    found = read(report.build(), size)
    assert [
        (row.gross, row.fee, row.net, row.currency, row.category, row.description)
        for row in found
        if isinstance(row, ReportRow)
    ] == [(gross, fee, gross - fee, code, kind, text.strip()) for gross, fee, code, kind, text in rows]


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9))
def test_no_amount_is_ever_rounded(amount: Decimal) -> None:
    cells = {**row_of("charge", str(amount)), "net": str(amount)}
    [row] = read(write_csv(cells, [cells]))
    if isinstance(row, ReportRow):
        assert Money(row.gross, "EUR").amount == amount
    else:
        assert amount != round(amount, 2)


def row_of(category: str, gross: str) -> dict[str, str]:
    return {
        "balance_transaction_id": "txn_1",
        "created_utc": "2026-03-10 12:00:00",
        "currency": "eur",
        "gross": gross,
        "fee": "0",
        "net": gross,
        "reporting_category": category,
        "source_id": "src_1",
        "payment_intent_id": "pi_1",
    }
