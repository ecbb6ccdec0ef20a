"""The storefront API of webhooks: endpoints, deliveries, and the catalogue of events."""
