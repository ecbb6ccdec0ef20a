"""Makes the rules that a new installation begins with."""

from django.db import migrations

# The card limit is on trial at first: test cards are shared by everybody, real ones are not.
DEFAULT_RULES = [
    dict(name="Blocklist", kind="blocklist", parameters={"list": "block"}, outcome="block", on_error="review"),
    dict(name="Review list", kind="blocklist", parameters={"list": "review"}, outcome="review", on_error="review"),
    dict(name="Card velocity", kind="velocity", outcome="review", mode="shadow", on_error="review",
         parameters={"dimension": "card", "limit": 10, "window_seconds": 3600}),
    dict(name="E-mail velocity", kind="velocity", points=10, on_error="miss",
         parameters={"dimension": "email", "limit": 10, "window_seconds": 3600}),
    dict(name="Country mismatch", kind="country_mismatch", points=30, on_error="miss",
         parameters={"between": ["billing", "shipping"]}),
    dict(name="High amount", kind="high_amount", outcome="review", on_error="review",
         parameters={"default": "1000.00", "limits": {"JPY": "150000"}}),
    dict(name="Address check failed", kind="avs", points=30, on_error="miss", parameters={"hit_on": ["fail"]}),
    dict(name="Card code check failed", kind="cvv", points=40, on_error="miss", parameters={"hit_on": ["fail"]}),
    dict(name="Total score", kind="score", outcome="review", on_error="review", parameters={"threshold": 50}),
]


def make_default_rules(apps, schema_editor):
    RuleConfig = apps.get_model("fraud", "RuleConfig")
    for number, rule in enumerate(DEFAULT_RULES, start=1):
        RuleConfig.objects.create(**{"mode": "on", "position": number * 10, **rule})


class Migration(migrations.Migration):
    dependencies = [("fraud", "0002_velocity_epoch")]

    operations = [migrations.RunPython(make_default_rules, migrations.RunPython.noop)]
