"""Notifications: messages, routing, the outbox and the services that deliver them."""
