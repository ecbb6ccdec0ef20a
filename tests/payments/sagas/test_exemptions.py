"""An exemption from 3-D Secure travels to the charge; a soft decline leads to the challenge, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from payments import services
from payments.gateways.base import Capabilities, ChargeRequest, ChargeResult, ChargeStatus, Decline
from payments.kinds import OperationKind
from payments.models import ApiClient, GatewayAccount, Order, Payment, SagaEffect
from payments.proof import prove_ledger
from payments.sagas import effects as saga_effects
from payments.screening import Decision, Stage
from tests.factories.customers import SavedPaymentMethodFactory
from tests.fakes import FakeGateway, ScriptedScreener, fact

pytestmark = pytest.mark.django_db

Place = Callable[..., Order]
RETURN_URL = "https://shop.example/return"


@dataclass
class StrictGateway(FakeGateway):
    """Its issuers grant no exemption; with 3-D Secure they let the customer authenticate."""

    capabilities: Capabilities = field(
        default_factory=lambda: Capabilities(sca_exemptions=frozenset({"low_value", "tra"}))
    )
    asked: list[tuple[str, bool]] = field(default_factory=list)
    grants: bool = False
    refuses_always: bool = False

    def _authorize(self, request: ChargeRequest) -> ChargeResult:
        self.asked.append((request.sca_exemption, request.request_three_d_secure))
        refuses = self.refuses_always or (request.sca_exemption and not self.grants)
        if refuses:
            return decline(request.operation_id, request)
        if request.request_three_d_secure:
            request = replace(request, payment_method="pm_3ds")
        return super()._authorize(request)


def decline(operation_id: str, request: ChargeRequest) -> ChargeResult:
    return ChargeResult(
        ChargeStatus.DECLINED,
        f"pi_{operation_id}",
        request.amount,
        decline=Decline("authentication_required", "38", "authenticate"),
    )


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> StrictGateway:
    fake = StrictGateway()
    monkeypatch.setattr(saga_effects, "get_gateway", lambda account: fake)
    return fake


@pytest.fixture
def screener(screener: ScriptedScreener) -> ScriptedScreener:
    """It approves everything, with an exemption."""
    screener.sca_exemption = "low_value"
    return screener


def test_a_granted_exemption_is_charged_without_a_challenge(place: Place, gateway: StrictGateway) -> None:
    gateway.grants = True
    assert place(return_url=RETURN_URL).state == "paid"
    assert gateway.asked == [("low_value", False)]


def test_a_soft_decline_leads_to_the_challenge_and_the_order_is_paid(
    place: Place, gateway: StrictGateway
) -> None:
    order = place(return_url=RETURN_URL)
    payment = order.payment
    assert (order.state, payment.state) == ("awaiting_customer", "requires_action")
    assert gateway.asked == [("low_value", False), ("", True)]
    attempts = list(payment.attempts.order_by("number").values_list("state", "route"))
    assert attempts == [("declined", "by priority"), ("live", "the issuer granted no exemption")]
    effects = SagaEffect.objects.filter(step="authorize").order_by("id")
    assert list(effects.values_list("outcome", flat=True)) == ["declined", None]
    gateway.authenticate(payment.gateway_reference, 12950)
    assert services.confirm_order(order).state == "paid"
    assert (gateway.money_kept(), prove_ledger()) == (12950, [])
    told = order.events.order_by("sequence").values_list("type", flat=True)
    assert list(told) == [
        "order.placed",
        "payment.declined",
        "order.awaiting_customer",
        "payment.authorized",
        "payment.captured",
        "order.paid",
    ]


def test_a_second_decline_is_the_end(place: Place, gateway: StrictGateway) -> None:
    gateway.refuses_always = True
    order = place(return_url=RETURN_URL)
    assert order.state == "declined"
    assert gateway.asked == [("low_value", False), ("", True)]
    assert order.payment.last_error["code"] == "authentication_required"


def test_nobody_is_challenged_who_cannot_come_back(place: Place, gateway: StrictGateway) -> None:
    assert place(return_url="").state == "declined"
    assert gateway.asked == [("low_value", False)]


def test_a_gateway_without_challenges_leaves_it_to_the_shop(place: Place, gateway: StrictGateway) -> None:
    gateway.capabilities = replace(gateway.capabilities, challenges=False)
    assert place(return_url=RETURN_URL).state == "declined"
    assert gateway.asked == [("low_value", False)]


def test_a_gateway_without_a_word_for_it_is_asked_as_usual(
    place: Place, gateway: StrictGateway, screener: ScriptedScreener
) -> None:
    screener.sca_exemption = "recurring"
    assert place(return_url=RETURN_URL).state == "paid"
    assert gateway.asked == [("", False)]


@pytest.mark.parametrize(
    ("decision", "asked", "state"),
    [(Decision.CHALLENGE, [("", True)], "awaiting_customer"), (Decision.REVIEW, [("", False)], "review")],
)
def test_a_suspect_is_exempt_from_nothing(
    place: Place,
    gateway: StrictGateway,
    screener: ScriptedScreener,
    decision: Decision,
    asked: list[tuple[str, bool]],
    state: str,
) -> None:
    screener.decisions[Stage.BEFORE_AUTHORIZATION] = decision
    assert place(return_url=RETURN_URL).state == state
    assert gateway.asked == asked


def test_a_challenge_may_be_asked_for_beside_the_decision(
    place: Place, gateway: StrictGateway, screener: ScriptedScreener
) -> None:
    screener.requests_challenge = True
    assert place(return_url=RETURN_URL).state == "awaiting_customer"
    assert gateway.asked == [("", True)]


def test_a_challenge_of_who_is_not_there_is_a_review(
    shop: ApiClient,
    account: GatewayAccount,
    place: Place,
    gateway: StrictGateway,
    screener: ScriptedScreener,
) -> None:
    saved = SavedPaymentMethodFactory.create(customer__client=shop, account=account)
    screener.decisions[Stage.BEFORE_AUTHORIZATION] = Decision.CHALLENGE
    order = place(payment_method=saved.pk, customer_id=saved.customer.storefront_id, off_session=True)
    assert (order.state, gateway.asked) == ("review", [("", False)])


def test_a_webhook_that_tells_the_soft_decline_first_changes_nothing(
    place: Place, gateway: StrictGateway
) -> None:
    """The answer to the first authorization is overtaken by its webhook."""

    def overtaken(once: Callable[[], ChargeResult]) -> ChargeResult:
        answer = once()
        payment = Payment.objects.get()
        told = fact(OperationKind.AUTHORIZE, answer, payment, payment.operations.get().pk)
        services.apply_gateway_fact(payment.account, told)
        return answer

    gateway.faults["authorize"] = [overtaken]
    order = place(return_url=RETURN_URL)
    assert (order.state, gateway.asked) == ("awaiting_customer", [("low_value", False), ("", True)])
