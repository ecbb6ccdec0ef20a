"""Users, roles and the schedule in the dress of the house; the API key page of a library is replaced by ours."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django_celery_beat import admin as beat
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from rest_framework_api_key.models import APIKey
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

BEAT = (ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule)
for model in (User, Group, APIKey, *BEAT):
    admin.site.unregister(model)


@admin.register(User)
class PeopleAdmin(UserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    """People get their rights by roles; only a superuser makes a superuser or gives a single right."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "email", "roles_text", "is_active", "is_superuser", "last_login"]
    list_filter = ["is_active", "is_superuser", "groups"]
    list_fullwidth = True
    filter_horizontal = ()

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("groups")

    @admin.display(description="Roles")
    def roles_text(self, user: User) -> str:
        return ", ".join(group.name for group in user.groups.all()) or "none"

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """A name stays: what people did is signed with it, and a second person is told from the first by it."""
        fields = ["last_login", "date_joined", *(["username"] if obj else [])]
        return fields if request.user.is_superuser else [*fields, "is_superuser", "user_permissions"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Or a password given to a superuser would be a way up."""
        if obj is not None and obj.is_superuser and not request.user.is_superuser:
            return False
        return bool(super().has_change_permission(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody is deleted: what they did is signed with their name. Take away `active` instead."""
        return False


@admin.register(Group)
class RoleAdmin(GroupAdmin, ModelAdmin):  # type: ignore[misc]
    """Roles are read here and written in payments/controls/roles.py, so that a review sees every change."""

    list_display = ["name", "rights_text"]
    fields = ["name", "rights_text"]
    readonly_fields = ["rights_text"]
    filter_horizontal = ()

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("permissions__content_type")

    @admin.display(description="May")
    def rights_text(self, group: Group) -> SafeString:
        rights: dict[str, list[str]] = defaultdict(list)
        for permission in group.permissions.all():
            app = apps.get_app_config(permission.content_type.app_label).verbose_name
            rights[str(app)].append(permission.name.removeprefix("Can "))
        lines = ((app, ", ".join(names)) for app, names in sorted(rights.items()))
        return format_html_join("", "<p><b>{}:</b> {}.</p>", lines)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


# --- the schedule ---------------------------------------------------------------------------------------------


class RegisteredTaskWidget(UnfoldAdminSelectWidget, beat.TaskSelectWidget):  # type: ignore[misc]
    """The library's list of task names in the theme's select."""


class ScheduleForm(beat.PeriodicTaskForm):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "task" in self.fields:
            self.fields["task"].widget = UnfoldAdminTextInputWidget()
            self.fields["regtask"].widget = RegisteredTaskWidget()


@admin.register(PeriodicTask)
class ScheduledTaskAdmin(beat.PeriodicTaskAdmin, ModelAdmin):  # type: ignore[misc]
    form = ScheduleForm
    change_form_template = None  # the library's has an inline script, which our policy refuses
    list_display = ["name", "enabled", "scheduler", "last_run_at", "one_off"]
    list_fullwidth = True
    date_hierarchy = None


# The library lets everybody who may look at the schedule switch and run its tasks.
for name in ScheduledTaskAdmin.actions:
    getattr(ScheduledTaskAdmin, name).allowed_permissions = ["change"]


class TasksInline(beat.PeriodicTaskInline, TabularInline):  # type: ignore[misc]
    pass


@admin.register(ClockedSchedule)
class ClockedAdmin(beat.ClockedScheduleAdmin, ModelAdmin):  # type: ignore[misc]
    inlines = [TasksInline]


@admin.register(CrontabSchedule)
class CrontabAdmin(beat.CrontabScheduleAdmin, ModelAdmin):  # type: ignore[misc]
    inlines = [TasksInline]


@admin.register(SolarSchedule)
class SolarAdmin(beat.SolarScheduleAdmin, ModelAdmin):  # type: ignore[misc]
    inlines = [TasksInline]


@admin.register(IntervalSchedule)
class IntervalAdmin(beat.IntervalScheduleAdmin, ModelAdmin):  # type: ignore[misc]
    inlines = [TasksInline]
