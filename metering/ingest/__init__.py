"""The life of an event: bytes -> decode -> admit -> batch -> write -> receipt. Nothing is acknowledged before it is durable."""
