"""The page on which the customer passes or fails 3-D Secure."""

from html import escape
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from .books import Session
from .holds import load_intent
from .intents import authenticate_intent
from .wire import Doc, Request, decimals, invalid

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --page: #f3f4f6; --card: #fff; --ink: #111827; --soft: #6b7280;
  --line: #e5e7eb; --go: #4338ca; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #0b0f19; --card: #151b28; --ink: #f3f4f6;
  --soft: #9ca3af; --line: #2b3445; --go: #5b5fd6; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1rem;
  background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }}
main {{ width: min(26rem, 100%); padding: 2rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; }}
p.bank {{ margin: 0; color: var(--soft); font-size: .875rem; }}
h1 {{ margin: .25rem 0 1rem; font-size: 1.375rem; line-height: 1.3; }}
dl {{ display: grid; grid-template-columns: auto 1fr; gap: .375rem 1rem; margin: 0 0 1.5rem; padding: 1rem 0;
  border-block: 1px solid var(--line); }}
dt {{ color: var(--soft); }}
dd {{ margin: 0; text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }}
form {{ display: grid; gap: .625rem; }}
button {{ min-height: 44px; padding: .5rem 1rem; border: 1px solid var(--line); border-radius: 8px;
  font: inherit; font-weight: 600; background: transparent; color: inherit; cursor: pointer; }}
button.go {{ background: var(--go); border-color: var(--go); color: #fff; }}
button:focus-visible {{ outline: 3px solid var(--go); outline-offset: 2px; }}
p.note {{ margin: 1rem 0 0; color: var(--soft); font-size: .875rem; }}
</style>
</head>
<body>
<main>
<p class="bank">Sandbox bank &middot; 3-D Secure</p>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""
FORM = """<dl>
<dt>Amount</dt><dd>{amount}</dd>
<dt>Card</dt><dd>{card}</dd>
<dt>Payment</dt><dd>{payment}</dd>
</dl>
<form method="post">
<button class="go" name="outcome" value="success">Authenticate</button>
<button name="outcome" value="failure">Fail</button>
</form>
<p class="note">To abandon the payment, close this page. No real card is charged.</p>
"""


def format_amount(intent: Doc) -> str:
    places = decimals(intent["currency"])
    whole, minor = divmod(intent["amount"], 10**places)
    return f"{whole:,}{f'.{minor:0{places}d}' if places else ''} {intent['currency'].upper()}"


def render_message(title: str, text: str) -> str:
    return PAGE.format(title=escape(title), body=f"<p>{escape(text)}</p>")


def open_page(session: Session, request: Request, identity: str) -> Doc:
    """The intent, if the client secret in the address fits. Raises ApiError 404 otherwise."""
    intent = load_intent(session, identity)
    if request.params.get("client_secret") != intent["client_secret"]:
        raise invalid(f"No such payment_intent: '{identity}'", "intent", "resource_missing", status=404)
    return intent


def show_page(session: Session, request: Request, identity: str) -> str:
    intent = open_page(session, request, identity)
    if intent["status"] != "requires_action":
        return render_message("Nothing to do", "This payment does not wait for your authentication.")
    card = session.get(intent["payment_method"], "payment_method")["card"]
    form = FORM.format(
        amount=escape(format_amount(intent)),
        card=escape(f"{card['brand'].title()} ending in {card['last4']}"),
        payment=escape(intent["description"] or intent["id"]),
    )
    return PAGE.format(title="Confirm your payment", body=form)


def submit_page(session: Session, request: Request, identity: str, outcome: str) -> str | None:
    """Pass or fail the challenge; the address to go on to, or None when the shop gave none."""
    intent = open_page(session, request, identity)
    if intent["status"] == "requires_action":
        intent = authenticate_intent(session, identity, success=outcome == "success")
    if not intent["_return_url"]:
        return None
    paid = intent["status"] in ("succeeded", "requires_capture", "processing")
    parts = urlsplit(intent["_return_url"])
    query = parse_qsl(parts.query, keep_blank_values=True)
    query += [("payment_intent", intent["id"]), ("payment_intent_client_secret", intent["client_secret"])]
    query += [("redirect_status", "succeeded" if paid else "failed")]
    return urlunsplit(parts._replace(query=urlencode(query)))
