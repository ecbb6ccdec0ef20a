"""Makes the default Stripe account, whose credentials are references to the environment."""

from django.db import migrations

from payments.ids import new_id


def make_default_account(apps, schema_editor):
    GatewayAccount = apps.get_model("payments", "GatewayAccount")
    GatewaySecret = apps.get_model("payments", "GatewaySecret")
    account = GatewayAccount.objects.create(
        id=new_id("acc"), gateway="stripe", name="default", api_key="env:STRIPE_API_KEY", api_base="env:STRIPE_API_BASE"
    )
    GatewaySecret.objects.create(account=account, value="env:STRIPE_WEBHOOK_SECRET")


class Migration(migrations.Migration):
    dependencies = [("payments", "0002_guards")]

    operations = [migrations.RunPython(make_default_account, migrations.RunPython.noop)]
