"""What the tests of secrets share: a PostgreSQL that asks for passwords."""
import os


def asks_for_passwords(pg):
    """Over TCP; the superuser's socket stays open."""
    with open(os.path.join(pg.data, "pg_hba.conf"), "w",
              encoding="ascii") as file:
        file.write("local all all trust\n"
                   "host all all 127.0.0.1/32 scram-sha-256\n")
    pg.sql("SELECT pg_reload_conf()")


def password(pg, text, role="books"):
    pg.sql(f"SET password_encryption = 'scram-sha-256';"
           f"ALTER ROLE {role} PASSWORD '{text}'")


def value(text, user="books", **more):
    """A secret as RDS makes it."""
    return {"username": user, "password": text, **more}
