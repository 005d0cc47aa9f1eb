-- The vault's tables. Everything that is sealed was sealed before it came here; names and numbers are in the clear.

CREATE TABLE keybearer.header (
    is_there boolean PRIMARY KEY DEFAULT true CHECK (is_there), -- so there is one row at most
    header bytea NOT NULL
);

CREATE TABLE keybearer.data_keys (
    tenant text COLLATE "C" PRIMARY KEY,
    sealed bytea NOT NULL
);

CREATE TABLE keybearer.accounts (
    tenant text COLLATE "C",
    connector text COLLATE "C",
    principal text COLLATE "C",
    generation bigint NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant, connector, principal)
);

-- Who refreshes an account, and until when. A fence is never given twice, to whichever account.
CREATE SEQUENCE keybearer.fences;

CREATE TABLE keybearer.leases (
    tenant text COLLATE "C",
    connector text COLLATE "C",
    principal text COLLATE "C",
    fence bigint NOT NULL,
    holder text NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (tenant, connector, principal),
    FOREIGN KEY (tenant, connector, principal) REFERENCES keybearer.accounts ON DELETE CASCADE
);

-- What is about to be sent to a token endpoint, and what came back.
CREATE TABLE keybearer.intents (
    tenant text COLLATE "C",
    connector text COLLATE "C",
    principal text COLLATE "C",
    fence bigint NOT NULL,
    sealed bytea NOT NULL,
    answer bytea,
    PRIMARY KEY (tenant, connector, principal),
    FOREIGN KEY (tenant, connector, principal) REFERENCES keybearer.accounts ON DELETE CASCADE
);

-- What is still to be recorded, by the process that wrote it or, if that has ended, by any other one.
CREATE TABLE keybearer.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    origin text NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    connector text COLLATE "C" NOT NULL,
    principal text COLLATE "C" NOT NULL,
    sealed bytea NOT NULL
);

-- What stands beside the accounts: who is frozen as a whole, whom an identity provider told of, which events were seen.
-- A name may be anything, also what no text can hold.
CREATE TABLE keybearer.facts (
    tenant text COLLATE "C",
    kind text COLLATE "C",
    name bytea,
    generation bigint NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant, kind, name)
);

-- Whoever changes an account, or freezes a whole, says so in the same transaction, psql included. `keybearer.origin`
-- names the process, which knows its own changes already.
CREATE FUNCTION keybearer.tell(what text) RETURNS void LANGUAGE sql SET search_path = pg_catalog AS $$
    SELECT pg_notify('keybearer',
        coalesce(nullif(current_setting('keybearer.origin', true), ''), '-') || ' ' || what)
$$;

CREATE FUNCTION keybearer.tell_account() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    changed keybearer.accounts;
BEGIN
    IF TG_OP = 'DELETE' THEN changed := OLD; ELSE changed := NEW; END IF;
    PERFORM keybearer.tell(format('account %s/%s/%s', changed.tenant, changed.connector, changed.principal));
    RETURN NULL;
END $$;

CREATE FUNCTION keybearer.tell_hold() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    changed keybearer.facts;
BEGIN
    IF TG_OP = 'DELETE' THEN changed := OLD; ELSE changed := NEW; END IF;
    IF changed.kind = 'hold' THEN
        PERFORM keybearer.tell(format('hold %s/%s', changed.tenant, convert_from(changed.name, 'UTF8')));
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON keybearer.accounts
    FOR EACH ROW EXECUTE FUNCTION keybearer.tell_account();

CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON keybearer.facts
    FOR EACH ROW EXECUTE FUNCTION keybearer.tell_hold();
