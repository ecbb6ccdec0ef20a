"""The keys to a demo: a login per role and an API key, the same at every start, in a file for scripts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from django.contrib.auth.models import Group, User
from django.utils.text import slugify

from config import demo_receiver, embedded
from payments.management.commands.create_api_client import create_key
from payments.models import ApiClient, ApiKey
from payments.models.client import Scope
from webhooks.endpoints import create_endpoint
from webhooks.models import Endpoint, EndpointSecret

CLIENT = "Demo shop"
WEBHOOK_PATH = "/webhooks/stripe/default/"
KEY_FILE = embedded.LOCAL / "secrets" / "demo_api_key"


@dataclass(frozen=True)
class Login:
    username: str
    password: str
    totp_secret: str | None = None


@dataclass(frozen=True)
class Access:
    """The content of `.local/demo.json`."""

    url: str
    sandbox_url: str
    api_key: str
    webhook_path: str
    webhook_secret: str
    users: dict[str, Login]


def grant(*, url: str, sandbox_url: str, webhook_secret: str, file: Path) -> Access:
    """Make the logins and the key work, and write them to the file, readable for its owner only."""
    access = Access(
        url=url,
        sandbox_url=sandbox_url,
        api_key=demo_api_key(),
        webhook_path=WEBHOOK_PATH,
        webhook_secret=webhook_secret,
        users=demo_logins(),
    )
    embedded.write_private(file, json.dumps(asdict(access), indent=2))
    return access


def demo_logins() -> dict[str, Login]:
    """One login per role group, and `admin` who may do everything."""
    logins = {"admin": _login("admin", superuser=True)}
    for group in Group.objects.order_by("pk"):
        role = slugify(group.name).replace("-", "_")
        if role not in logins:
            logins[role] = _login(role, group=group)
    return logins


def demo_api_key() -> str:
    """The key of the demo shop, a new one when the database does not know the old one."""
    if KEY_FILE.exists() and ApiKey.objects.is_valid(KEY_FILE.read_text()):
        return KEY_FILE.read_text()
    _, key = create_key(CLIENT, scopes=list(Scope.values))
    embedded.write_private(KEY_FILE, key)
    return key


def endpoint_secrets(url: str) -> list[str]:
    """Let the demo shop's own endpoint be at this address; what signs for it, two while one is rotated."""
    demo_api_key()  # makes the shop
    shop = ApiClient.objects.get(name=CLIENT)
    own = Endpoint.objects.filter(client=shop, url__endswith=demo_receiver.PATH)
    if not own.update(url=url):
        create_endpoint(shop, url, description="The receiver of the demo")
    return [secret.value for secret in EndpointSecret.objects.valid().filter(endpoint__in=own)]


def _login(role: str, *, group: Group | None = None, superuser: bool = False) -> Login:
    login = Login(role, embedded.local_secret(f"demo_password_{role}")[:16])
    user, _ = User.objects.get_or_create(username=role, defaults={"email": f"{role}@countinghouse.example"})
    user.is_staff, user.is_superuser, user.is_active = True, superuser, True
    if not user.check_password(login.password):
        user.set_password(login.password)
    user.save()
    if group is not None:
        user.groups.set([group])
    return login
