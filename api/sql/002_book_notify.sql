-- Whoever keeps books in memory hears of every change to them, whoever makes
-- it: one notification per statement on the channel books_changed, sent by
-- the server when the change is committed.  The payload is a JSON array of the
-- ISBNs that may have changed, or the word flush when there are more than 100
-- of them, when they would take more than 7,000 bytes (a payload holds less
-- than 8,000), and for TRUNCATE.  A statement that changed no row is silent.
--
-- The function runs as whoever changes books, so it finds nothing by anybody's
-- search path, and needs no more than a call of pg_notify().  Of a statement's
-- rows it looks at 101 at most: with more it is flush, whichever they are.
CREATE OR REPLACE FUNCTION booksd_book_changed() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    old_isbns text[] := '{}';
    new_isbns text[] := '{}';
    isbns text[];
    isbns_count bigint;
    payload text;
BEGIN
    -- Only the tables that this kind of statement has can be named: a query is
    -- prepared when it is reached.
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        old_isbns := ARRAY(SELECT isbn::text FROM booksd_old LIMIT 101);
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        new_isbns := ARRAY(SELECT isbn::text FROM booksd_new LIMIT 101);
    END IF;
    isbns := CASE WHEN old_isbns = new_isbns THEN new_isbns
        ELSE old_isbns || new_isbns END;
    IF cardinality(isbns) = 1 THEN -- as nearly always: without a query
        isbns_count := 1;
        payload := '[' || to_json(isbns[1])::text || ']';
    ELSE
        SELECT count(*), '[' || string_agg(to_json(isbn)::text, ',') || ']'
        INTO isbns_count, payload
        FROM (
            SELECT DISTINCT isbn COLLATE "C" AS isbn
            FROM unnest(isbns) AS isbn) AS changed;
    END IF;

    IF TG_OP = 'TRUNCATE' OR isbns_count > 100 OR octet_length(payload) > 7000
        OR greatest(cardinality(old_isbns), cardinality(new_isbns)) > 100
    THEN
        PERFORM pg_notify('books_changed', 'flush');
    ELSIF isbns_count > 0 THEN
        PERFORM pg_notify('books_changed', payload);
    END IF;
    RETURN NULL;
END
$body$;

-- CREATE OR REPLACE TRIGGER would ask for the table's owner; this asks for its
-- TRIGGER privilege.
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN VALUES
        ('booksd_book_insert', 'INSERT', 'REFERENCING NEW TABLE AS booksd_new'),
        ('booksd_book_update', 'UPDATE',
            'REFERENCING OLD TABLE AS booksd_old NEW TABLE AS booksd_new'),
        ('booksd_book_delete', 'DELETE', 'REFERENCING OLD TABLE AS booksd_old'),
        ('booksd_book_truncate', 'TRUNCATE', '')
    LOOP
        IF NOT EXISTS (
            SELECT FROM pg_trigger
            WHERE tgrelid = 'book'::regclass AND tgname = wanted.column1)
        THEN
            EXECUTE format('CREATE TRIGGER %I AFTER %s ON book %s'
                ' FOR EACH STATEMENT EXECUTE FUNCTION booksd_book_changed()',
                wanted.column1, wanted.column2, wanted.column3);
        END IF;
    END LOOP;
END
$$;
