-- name: read_tightening
-- What the database says of the last migration that took something away; migrations/env.py writes it there.
SELECT obj_description('alembic_version'::regclass, 'pg_class');
