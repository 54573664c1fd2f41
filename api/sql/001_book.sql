-- The catalogue.  A database that the original service's Flyway made, at any
-- of its stages, is taken over in place: what is missing is added, nothing is
-- rewritten.  ALTER TABLE runs only when there is something to add, so that a
-- role which does not own a complete table can run this file.
CREATE TABLE IF NOT EXISTS book (
    id bigserial PRIMARY KEY,
    author varchar(255) NOT NULL,
    isbn varchar(255) UNIQUE NOT NULL,
    price float8 NOT NULL,
    title varchar(255) NOT NULL,
    created_date timestamp NOT NULL,
    last_modified_date timestamp NOT NULL,
    version integer NOT NULL,
    publisher varchar(255),
    created_by varchar(255),
    last_modified_by varchar(255)
);

DO $$
DECLARE
    missing text;
BEGIN
    FOREACH missing IN ARRAY
        ARRAY['publisher', 'created_by', 'last_modified_by']
    LOOP
        IF NOT EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = 'book'::regclass AND attname = missing
                AND NOT attisdropped)
        THEN
            EXECUTE format('ALTER TABLE book ADD COLUMN %I varchar(255)',
                missing);
        END IF;
    END LOOP;

    -- ON CONFLICT (isbn) needs a whole, immediate, valid unique index on it.
    IF NOT EXISTS (
        SELECT FROM pg_index i
            JOIN pg_attribute a ON a.attrelid = i.indrelid
                AND a.attnum = i.indkey[0]
        WHERE i.indrelid = 'book'::regclass AND a.attname = 'isbn'
            AND i.indnkeyatts = 1 AND i.indisunique AND i.indimmediate
            AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL)
    THEN
        ALTER TABLE book ADD UNIQUE (isbn);
    END IF;
END
$$;
