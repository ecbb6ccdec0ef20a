"""Addresses below /api/v1/, beside those of payments."""

from __future__ import annotations

from django.urls import path

from fraud.api.assessments import AssessmentView
from fraud.api.labels import LabelView
from fraud.api.lists import ListEntryView
from fraud.api.reviews import ReviewDecisionView, ReviewView

app_name = "fraud_api"
urlpatterns = [
    path("reviews", ReviewView.as_view({"get": "list"}), name="reviews"),
    path("reviews/<str:pk>", ReviewView.as_view({"get": "retrieve"}), name="review"),
    path("reviews/<str:pk>/approve", ReviewDecisionView.as_view({"post": "approve"}), name="approve"),
    path("reviews/<str:pk>/reject", ReviewDecisionView.as_view({"post": "reject"}), name="reject"),
    path("assessments", AssessmentView.as_view({"get": "list"}), name="assessments"),
    path("assessments/<str:pk>", AssessmentView.as_view({"get": "retrieve"}), name="assessment"),
    path("labels", LabelView.as_view({"get": "list", "post": "create"}), name="labels"),
    path("lists/entries", ListEntryView.as_view({"get": "list", "post": "create"}), name="entries"),
    path("lists/entries/<str:pk>", ListEntryView.as_view({"get": "retrieve", "delete": "end"}), name="entry"),
]
