"""The thin shell: asks metering, translates, answers over GraphQL; and the ASGI application in which all is wired."""
