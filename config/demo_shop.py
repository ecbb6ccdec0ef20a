"""The shop of the demo: its goods, its customers and their cards, drawn by a seeded dice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any, TypeVar

from payments.money import Money
from payments.services import OrderDraft

T = TypeVar("T")

# Prices are EUR cents.
GOODS = {
    "MUG-1": 1490,
    "TEA-POT": 4900,
    "TEA-SENCHA": 1250,
    "NOTEBOOK-A5": 1800,
    "FOUNTAIN-PEN": 6900,
    "INK-BLUE": 1100,
    "LAMP-DESK": 11900,
    "CHAIR-OAK": 24900,
    "BLANKET-WOOL": 8900,
    "PRINT-HARBOUR": 3900,
    "CUSHION": 2900,
    "VASE-TALL": 5600,
}
DEAR_GOODS = {"TABLE-OAK": 129000, "SIDEBOARD": 158000, "ESPRESSO-PRO": 114900}
LIMITED = "PRINT-SIGNED"  # few, so that the last buyers come too late
STOCK = {**dict.fromkeys([*GOODS, *DEAR_GOODS], 5000), LIMITED: 4}

FIRST_NAMES = {
    "DE": ["Anna", "Jonas", "Lea", "Felix", "Katrin", "Murat", "Sophie", "Bernd"],
    "FR": ["Camille", "Hugo", "Chloé", "Louis", "Inès", "Mathis"],
    "NL": ["Daan", "Sanne", "Bram", "Femke"],
    "AT": ["Lukas", "Magdalena", "Stefan"],
    "IT": ["Giulia", "Marco", "Elena"],
    "ES": ["Lucía", "Javier", "Marta"],
    "US": ["Emily", "Marcus", "Dana", "Howard"],
    "JP": ["Yuki", "Haruto", "Aoi"],
}
LAST_NAMES = {
    "DE": ["Keller", "Brandt", "Yılmaz", "Hoffmann", "Vogel", "Schäfer", "Lorenz"],
    "FR": ["Moreau", "Lefèvre", "Garnier", "Roux", "Benali"],
    "NL": ["de Vries", "Bakker", "Jansen", "Visser"],
    "AT": ["Gruber", "Moser", "Leitner"],
    "IT": ["Ricci", "Ferrari", "Conti"],
    "ES": ["Navarro", "Ortega", "Vidal"],
    "US": ["Carter", "Nguyen", "Sullivan", "Brooks"],
    "JP": ["Tanaka", "Suzuki", "Mori"],
}
COUNTRIES = {"DE": 40, "FR": 16, "NL": 12, "AT": 8, "IT": 6, "ES": 5, "US": 9, "JP": 4}
CURRENCIES = {"US": "USD", "JP": "JPY"}
BRANDS = {"visa": 50, "mastercard": 28, "visa_debit": 10, "amex": 7, "mastercard_debit": 5}
POSTCODES = {"DE": "10115", "FR": "75011", "NL": "1012 AB", "AT": "1070", "IT": "20121", "ES": "28013"}
YEN_PER_HUNDRED_CENTS = 162
CUSTOMERS = 160
PLAIN = str.maketrans("éèçäöüßıíñ ", "eecaousiin-")


@dataclass(frozen=True, slots=True)
class Customer:
    """One who buys, the same person with the same card each time."""

    number: int
    name: str
    email: str
    country: str
    brand: str
    ip: str

    @property
    def token(self) -> str:
        """A sandbox token: this customer's own card, of the customer's country."""
        return f"pm_card_{self.brand}_{self.country.lower()}_c{self.number}"

    def card(self, kind: str) -> str:
        """A card of another kind, such as one that is declined."""
        return f"pm_card_{kind}_{self.country.lower()}_c{self.number}"


def make_customer(number: int) -> Customer:
    """The customer of that number, always the same."""
    dice = roll(f"customer {number}")
    country = pick(dice, COUNTRIES)
    first, last = dice.choice(FIRST_NAMES[country]), dice.choice(LAST_NAMES[country])
    return Customer(
        number=number,
        name=f"{first} {last}",
        email=f"{first}.{last}{number}@example.com".lower().translate(PLAIN),
        country=country,
        brand=pick(dice, BRANDS),
        ip=f"{dice.choice(['192.0.2', '198.51.100', '203.0.113'])}.{dice.randint(1, 254)}",
    )


def draft_order(dice: Random, *, reference: str, at: datetime, history: str, **wishes: Any) -> OrderDraft:
    """What a customer orders at that time.

    `wishes` may name the `customer` by number, `goods`, `ship_to`, a `card` kind, or any field.
    """
    number = wishes.pop("customer", None)
    customer = make_customer(dice.randrange(CUSTOMERS) if number is None else number)
    currency = CURRENCIES.get(customer.country, "EUR")
    lines = price_lines(wishes.pop("goods", None) or fill_basket(dice), currency)
    total = sum(int(line["quantity"]) * int(line["unit_amount"]) for line in lines)
    kind = wishes.pop("card", "")
    fields: dict[str, Any] = {
        "reference": reference,
        "amount": Money(total, currency),
        "payment_method": customer.card(kind) if kind else customer.token,
        "lines": lines,
        "return_url": "https://shop.example/return",
        "metadata": {"history": history, "cart": f"c-{dice.randrange(16**6):06x}"},
        **describe_customer(customer, at=at, ship_to=wishes.pop("ship_to", customer.country)),
    }
    return OrderDraft(**{**fields, **wishes})


def describe_customer(customer: Customer, *, at: datetime, ship_to: str) -> dict[str, Any]:
    """Who orders, from where and to where, as an order's fields."""
    context = {
        "ip": customer.ip,
        "ip_country": customer.country,
        "device": f"d_{customer.number:04d}",
        "user_agent": "Mozilla/5.0",
    }
    return {
        "customer_id": f"cus_{1000 + customer.number}",
        "customer_email": customer.email,
        "customer_created_at": at - timedelta(days=5 + customer.number * 7),
        "billing": address(customer, customer.country),
        "shipping": address(customer, ship_to),
        "context": context,
    }


def price_lines(goods: Mapping[str, int], currency: str) -> list[dict[str, str | int]]:
    """Goods by their quantity, as an order's lines."""
    return [
        {"sku": sku, "quantity": quantity, "unit_amount": price(sku, currency)}
        for sku, quantity in goods.items()
    ]


def fill_basket(dice: Random) -> dict[str, int]:
    skus = dice.sample(sorted(GOODS), pick(dice, {1: 55, 2: 30, 3: 15}))
    return {sku: pick(dice, {1: 80, 2: 20}) for sku in skus}


def price(sku: str, currency: str) -> int:
    """Minor units."""
    cents = {**GOODS, **DEAR_GOODS, LIMITED: 9500}[sku]
    return cents * YEN_PER_HUNDRED_CENTS // 100 if currency == "JPY" else cents


def address(customer: Customer, country: str) -> dict[str, str]:
    return {"name": customer.name, "country": country, "postal_code": POSTCODES.get(country, "")}


def roll(seed: str) -> Random:
    """The dice of one thing: the same at every seeding."""
    return Random(f"countinghouse {seed}")  # noqa: S311 - a play, no secret


def pick(dice: Random, weights: Mapping[T, int]) -> T:
    return dice.choices(list(weights), list(weights.values()))[0]
