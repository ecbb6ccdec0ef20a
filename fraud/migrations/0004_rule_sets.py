"""Turns the rules into the first rule set: their kinds become expressions of the rule language."""

import hashlib
import json

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models
from django.utils.text import slugify

import payments.models.fields

WINDOWS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
COUNTRIES = {name: f"{name}_country" for name in ("billing", "shipping", "ip", "card")}
FIELDS = ("key", "name", "code", "expression", "parameters", "points", "outcome", "mode", "share", "on_error", "position")

GUARDS = """
CREATE FUNCTION fraud_rule_is_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    touched text[] := ARRAY[CASE WHEN TG_OP <> 'INSERT' THEN OLD.ruleset_id END, CASE WHEN TG_OP <> 'DELETE' THEN NEW.ruleset_id END];
BEGIN
    IF EXISTS (SELECT FROM fraud_ruleset WHERE id = ANY (touched) AND state <> 'draft') THEN
        RAISE EXCEPTION 'The rules of a set that is no draft are never changed (%)', touched[2] USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN COALESCE(NEW, OLD);
END $$;
CREATE TRIGGER fraud_rule_frozen BEFORE INSERT OR UPDATE OR DELETE ON fraud_rule
    FOR EACH ROW EXECUTE FUNCTION fraud_rule_is_frozen();

CREATE FUNCTION fraud_ruleset_is_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.state = 'draft' THEN
        RETURN OLD;
    END IF;
    IF TG_OP = 'DELETE' OR OLD.state IN ('published', 'discarded')
       OR NOT (NEW.state = OLD.state
               OR (OLD.state, NEW.state) IN (('draft', 'submitted'), ('draft', 'discarded'), ('submitted', 'draft'), ('submitted', 'published')))
       OR (OLD.state = 'submitted' AND NEW.state = 'published' AND NEW.digest <> OLD.digest)
       OR (NEW.state = 'published' AND NEW.editors ? NEW.published_by) THEN
        RAISE EXCEPTION 'Rule set % is %: this change is refused', OLD.number, OLD.state USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fraud_ruleset_frozen BEFORE UPDATE OR DELETE ON fraud_ruleset
    FOR EACH ROW EXECUTE FUNCTION fraud_ruleset_is_frozen();

CREATE FUNCTION fraud_activation_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.cancelled_at IS NOT NULL
       OR (OLD.id, OLD.ruleset_id, OLD.starts_at, OLD.created_by) IS DISTINCT FROM (NEW.id, NEW.ruleset_id, NEW.starts_at, NEW.created_by) THEN
        RAISE EXCEPTION 'What was in force is never changed' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fraud_activation_kept BEFORE UPDATE OR DELETE ON fraud_ruleactivation
    FOR EACH ROW EXECUTE FUNCTION fraud_activation_is_kept();
"""
NO_GUARDS = """
DROP TRIGGER fraud_rule_frozen ON fraud_rule; DROP FUNCTION fraud_rule_is_frozen();
DROP TRIGGER fraud_ruleset_frozen ON fraud_ruleset; DROP FUNCTION fraud_ruleset_is_frozen();
DROP TRIGGER fraud_activation_kept ON fraud_ruleactivation; DROP FUNCTION fraud_activation_is_kept();
"""


def span(seconds):
    for size, unit in WINDOWS:
        if seconds % size == 0:
            return f"{seconds // size}{unit}"


def answers(fact, parameters):
    texts = parameters.get("hit_on", ["fail"])
    return f'{fact} == "{texts[0]}"' if len(texts) == 1 else f"{fact} in ({', '.join(json.dumps(text) for text in texts)})"


def translate(rule):
    """The code, the expression and the parameters that say the same as the old kind did."""
    old = rule.parameters
    match rule.kind:
        case "blocklist":
            return "", f'in_list("{old.get("list", "block")}")', {}
        case "avs" | "cvv":
            return "", answers(rule.kind, old), {}
        case "velocity":
            window = span(old.get("window_seconds", 3600))
            return "", f'velocity("{old.get("dimension", "card")}", "{window}") > {{limit}}', {"limit": old.get("limit", 10)}
        case "country_mismatch":
            first, *others = [COUNTRIES[name] for name in old.get("between", ["billing", "shipping"])]
            return "", " or ".join(f"{first} != {other}" for other in others), {}
        case "score":
            return "", "score >= {threshold}", {"threshold": old.get("threshold", 50)}
    return rule.kind, "", old


def translate_rules(apps, schema_editor):
    Rule, RuleSet = apps.get_model("fraud", "Rule"), apps.get_model("fraud", "RuleSet")
    now = django.utils.timezone.now()
    first = RuleSet.objects.create(
        number=1, note="The rules that a new installation begins with.", created_by="system", editors=["system"]
    )
    lines = []
    for rule in Rule.objects.order_by("position", "id"):
        rule.ruleset, rule.key = first, slugify(rule.name)[:50] or f"rule-{rule.pk}"
        if Rule.objects.filter(ruleset=first, key=rule.key).exists():
            rule.key = f"{rule.key}-{rule.pk}"
        rule.code, rule.expression, rule.parameters = translate(rule)
        rule.save()
        lines.append({name: getattr(rule, name) for name in FIELDS})
    lines.sort(key=lambda line: line["key"])
    digest = hashlib.sha256(json.dumps(lines, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    RuleSet.objects.filter(pk=first.pk).update(
        state="published", digest=digest, submitted_by="system", submitted_at=now, published_by="installation", published_at=now
    )
    apps.get_model("fraud", "RuleActivation").objects.create(ruleset=first, starts_at=now, created_by="installation")


NAME_VERDICTS = """
UPDATE fraud_verdict SET rule_key = rule.key, nanoseconds = nanoseconds * 1000 FROM fraud_rule rule WHERE rule.id = fraud_verdict.rule_id;
UPDATE fraud_verdict SET rule_kind = 'total' WHERE rule_kind = 'score';
"""


class Migration(migrations.Migration):
    dependencies = [("fraud", "0003_default_rules")]

    operations = [
        migrations.CreateModel(
            name="RuleSet",
            fields=[
                ("id", payments.models.fields.PrefixedIdField(editable=False, prefix="rset", primary_key=True, serialize=False)),
                ("number", models.PositiveIntegerField(editable=False, unique=True)),
                ("state", models.CharField(choices=[("draft", "Draft"), ("submitted", "Waits for another person"), ("published", "Published"), ("discarded", "Discarded")], default="draft", max_length=10)),
                ("note", models.CharField(blank=True, max_length=500, verbose_name="what changes, and why")),
                ("digest", models.CharField(blank=True, editable=False, help_text="SHA-256 of every rule, from the submission on.", max_length=64)),
                ("editors", models.JSONField(default=list, editable=False, help_text="Who changed the draft.")),
                ("created_by", models.CharField(editable=False, max_length=150)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("submitted_by", models.CharField(blank=True, editable=False, max_length=150)),
                ("submitted_at", models.DateTimeField(editable=False, null=True)),
                ("published_by", models.CharField(blank=True, editable=False, max_length=150)),
                ("published_at", models.DateTimeField(editable=False, null=True)),
                ("based_on", models.ForeignKey(blank=True, editable=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name="drafts", to="fraud.ruleset")),
            ],
            options={
                "ordering": ["-number"],
                "permissions": [("draft_ruleset", "Can make and change drafts of rule sets"), ("publish_ruleset", "Can publish, schedule and roll back rule sets")],
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("state__in", ["draft", "submitted", "published", "discarded"])), name="fraud_ruleset_state_known"),
                    models.CheckConstraint(condition=models.Q(("published_by", ""), models.Q(("published_by", models.F("submitted_by")), _negated=True), _connector="OR"), name="fraud_ruleset_published_by_another"),
                    models.CheckConstraint(condition=models.Q(models.Q(("state", "published"), _negated=True), models.Q(("published_by", ""), ("digest", ""), _connector="OR", _negated=True), _connector="OR"), name="fraud_ruleset_published_is_signed"),
                ],
            },
        ),
        migrations.CreateModel(
            name="RuleActivation",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("starts_at", models.DateTimeField()),
                ("is_rollback", models.BooleanField(default=False)),
                ("note", models.CharField(blank=True, max_length=500)),
                ("created_by", models.CharField(max_length=150)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("cancelled_at", models.DateTimeField(null=True)),
                ("cancelled_by", models.CharField(blank=True, max_length=150)),
                ("ruleset", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="activations", to="fraud.ruleset")),
            ],
            options={
                "ordering": ["-starts_at", "-id"],
                "indexes": [models.Index(fields=["-starts_at", "-id"], name="fraud_activation_newest")],
            },
        ),
        migrations.RenameModel("RuleConfig", "Rule"),
        migrations.AlterModelOptions("rule", options={"ordering": ["position", "id"]}),
        migrations.RemoveConstraint("rule", "fraud_rule_kind_known"),
        migrations.RemoveField("rule", "updated_at"),
        migrations.AlterField("rule", "name", models.CharField(max_length=80)),
        migrations.AlterField("rule", "mode", models.CharField(choices=[("off", "Off"), ("shadow", "Shadow"), ("share", "Share"), ("on", "On")], default="shadow", help_text="Shadow: judged and recorded on every order, without effect. Share: in effect for some orders.", max_length=8)),
        migrations.RemoveConstraint("rule", "fraud_rule_mode_known"),
        migrations.AddField("rule", "ruleset", models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name="rules", to="fraud.ruleset")),
        migrations.AddField("rule", "key", models.SlugField(default="", help_text="Names the rule in every version: its verdicts and figures hang on it.", max_length=60), preserve_default=False),
        migrations.AddField("rule", "code", models.CharField(blank=True, default="", help_text="Empty: the expression decides.", max_length=40), preserve_default=False),
        migrations.AddField("rule", "expression", models.TextField(blank=True, default=""), preserve_default=False),
        migrations.AddField("rule", "share", models.PositiveSmallIntegerField(default=100, help_text="Of the orders, when the mode is Share; the others are shadow.", verbose_name="share (%)")),
        migrations.RunPython(translate_rules, migrations.RunPython.noop),
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", migrations.RunSQL.noop),
        migrations.RemoveField("rule", "kind"),
        migrations.AlterField("rule", "ruleset", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="rules", to="fraud.ruleset")),
        migrations.AddConstraint("rule", models.UniqueConstraint(fields=("ruleset", "key"), name="fraud_rule_key_once")),
        migrations.AddConstraint("rule", models.CheckConstraint(condition=models.Q(("mode__in", ["off", "shadow", "share", "on"])), name="fraud_rule_mode_known")),
        migrations.AddConstraint("rule", models.CheckConstraint(condition=models.Q(("share__lte", 100)), name="fraud_rule_share_percent")),
        migrations.AddConstraint("rule", models.CheckConstraint(condition=models.Q(models.Q(("code", ""), ("expression__gt", "")), models.Q(("code__gt", ""), ("expression", "")), _connector="OR"), name="fraud_rule_one_source")),
        migrations.AddField("assessment", "ruleset", models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name="assessments", to="fraud.ruleset")),
        migrations.AddField("verdict", "rule_key", models.CharField(default="", help_text="The same in every version of the rule.", max_length=60), preserve_default=False),
        migrations.AlterField("verdict", "rule", models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name="verdicts", to="fraud.rule")),
        migrations.AlterField("verdict", "rule_kind", models.CharField(help_text="expression, total, or the name of its code.", max_length=40)),
        migrations.RenameField("verdict", "microseconds", "nanoseconds"),
        migrations.RunSQL(NAME_VERDICTS, migrations.RunSQL.noop),
        migrations.RemoveIndex("verdict", "fraud_verdict_rule"),
        migrations.AddIndex("verdict", models.Index(fields=["rule_key", "status", "-id"], name="fraud_verdict_rule")),
        migrations.RunSQL(GUARDS, NO_GUARDS),
    ]
