"""The only code that talks to PostgreSQL.

`tables` names what is stored, `engine` knows the two places where engines differ (DDL and refresh), `pool` gives
connections, `migrate` brings a database to this release, `embedded` runs the PostgreSQL of the wheel.
"""
