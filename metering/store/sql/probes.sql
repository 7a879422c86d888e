-- name: read_revision
-- The revision that the database was migrated to.
SELECT version_num FROM alembic_version;
