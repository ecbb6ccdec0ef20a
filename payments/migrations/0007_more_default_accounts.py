"""Makes the default Adyen and Braintree accounts; they take payments from the start only where their key is set."""

from django.conf import settings
from django.db import migrations

from payments.ids import new_id

OPTIONS = {
    "adyen": {"merchant_account": "env:ADYEN_MERCHANT_ACCOUNT"},
    "braintree": {"merchant_id": "env:BRAINTREE_MERCHANT_ID", "public_key": "env:BRAINTREE_PUBLIC_KEY"},
}


def make_default_accounts(apps, schema_editor):
    GatewayAccount = apps.get_model("payments", "GatewayAccount")
    GatewaySecret = apps.get_model("payments", "GatewaySecret")
    for gateway, options in OPTIONS.items():
        prefix = gateway.upper()
        account = GatewayAccount.objects.create(
            id=new_id("acc"),
            gateway=gateway,
            name="default",
            api_key=f"env:{prefix}_API_KEY",
            api_base=f"env:{prefix}_API_BASE",
            options=options,
            is_active=bool(getattr(settings, f"{prefix}_API_KEY")),
            priority=200,
        )
        GatewaySecret.objects.create(account=account, value=f"env:{prefix}_WEBHOOK_SECRET")


class Migration(migrations.Migration):
    dependencies = [("payments", "0006_payments_in_full")]

    operations = [migrations.RunPython(make_default_accounts, migrations.RunPython.noop)]
