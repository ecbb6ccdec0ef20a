"""The page of the card's bank, on which the customer passes or fails 3-D Secure."""

from html import escape

from payments.sandbox.pages import FORM, PAGE, render_message

from .wire import Doc, format_major

__all__ = ["render_message", "show_page"]


def show_page(payment: Doc) -> str:
    if payment["status"] != "pending":
        return render_message("Nothing to do", "This payment does not wait for your authentication.")
    form = FORM.format(
        amount=escape(f"{format_major(payment['amount'], payment['currency'])} {payment['currency']}"),
        card=escape(
            f"{payment['_card']['paymentMethod'].title()} ending in {payment['_card']['cardSummary']}"
        ),
        payment=escape(payment["reference"]),
    )
    return PAGE.format(title="Confirm your payment", body=form)
