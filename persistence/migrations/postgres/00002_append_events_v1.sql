-- +goose Up

-- append_events_v1 appends one batch of drafts, each to its conversation's log, and says what became of each:
-- status 0: stored at seq; 1: known already, at seq; 2: decided on another version of the head than the present one;
-- 3: no such conversation. A later form of this function gets a new name, so that old and new gateways can run side by
-- side on one database.
--
-- keys are the conversations, ascending and each once. The other arrays have one element per draft, in the order of
-- arrival: pos is the position of its conversation in keys, versions the version of the head that it was decided on.
-- No two drafts have the same conversation, sender and client.
--
-- +goose StatementBegin
CREATE FUNCTION append_events_v1(
    keys uuid[], pos integer[], versions bigint[], senders bigint[], clients text[], kinds integer[], times bigint[],
    payloads bytea[]
) RETURNS TABLE (ordinal bigint, status integer, seq bigint)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    ids   uuid[];
    bases bigint[];
    heads bigint[];
BEGIN
    -- Everybody locks heads in ascending order, so that nobody waits for one who waits for him.
    SELECT array_agg(h.id), array_agg(h.last_seq), array_agg(h.version) INTO ids, bases, heads
    FROM (
        SELECT c.id, c.last_seq, c.version FROM conversations c WHERE c.id = ANY (keys) ORDER BY c.id FOR UPDATE
    ) h;
    -- With all of them there, the arrays are in step with keys. Otherwise, those that are missing get NULLs.
    IF cardinality(ids) IS DISTINCT FROM cardinality(keys) THEN
        SELECT array_agg(f.base ORDER BY a.i), array_agg(f.head ORDER BY a.i) INTO bases, heads
        FROM unnest(keys) WITH ORDINALITY a (id, i)
        LEFT JOIN unnest(ids, bases, heads) f (id, base, head) ON f.id = a.id;
    END IF;

    -- A statement of its own, since only a snapshot taken after the locks shows what their former holders committed.
    -- Heads are picked by array subscript and not by a join, whose size the planner guesses badly.
    RETURN QUERY
    WITH looked AS MATERIALIZED (
        SELECT d.i, d.k, d.sender, d.client, d.kind, d.at, d.payload, e.seq AS known,
            CASE
                WHEN bases[d.k] IS NULL THEN 3
                WHEN e.seq IS NOT NULL THEN 1
                WHEN heads[d.k] <> d.version THEN 2
                ELSE 0
            END AS outcome
        FROM unnest(pos, versions, senders, clients, kinds, times, payloads)
            WITH ORDINALITY d (k, version, sender, client, kind, at, payload, i)
        LEFT JOIN LATERAL (
            SELECT x.seq FROM events x
            WHERE uuid_send(x.conversation_id) = uuid_send(keys[d.k]) AND x.sender_id = d.sender AND x.client_id = d.client
            LIMIT 1
        ) e ON true
    ), numbered AS MATERIALIZED (
        SELECT l.*, bases[l.k] + row_number() OVER (PARTITION BY l.k ORDER BY l.i) AS n
        FROM looked l WHERE l.outcome = 0
    ), written AS (
        INSERT INTO events (conversation_id, seq, sender_id, client_id, kind, created_at, payload)
        SELECT keys[m.k], m.n, m.sender, m.client, m.kind, m.at, m.payload FROM numbered m
    ), raised AS (
        UPDATE conversations c SET last_seq = t.n
        FROM (SELECT keys[m.k] AS id, max(m.n) AS n FROM numbered m GROUP BY m.k) t
        WHERE c.id = t.id
    )
    SELECT l.i, l.outcome, l.known FROM looked l WHERE l.outcome <> 0
    UNION ALL
    SELECT m.i, 0, m.n FROM numbered m;
END
$body$;
-- +goose StatementEnd

-- append_event_v1 is the same for a single draft, which it appends in half the time.
--
-- +goose StatementBegin
CREATE FUNCTION append_event_v1(
    conversation uuid, version bigint, sender bigint, client text, kind integer, at bigint, payload bytea,
    OUT status integer, OUT seq bigint
) LANGUAGE plpgsql AS $body$
#variable_conflict use_variable
DECLARE
    last bigint;
    head bigint;
BEGIN
    SELECT c.last_seq, c.version INTO last, head FROM conversations c WHERE c.id = conversation FOR UPDATE;
    IF last IS NULL THEN
        status := 3;
        RETURN;
    END IF;
    SELECT e.seq INTO seq FROM events e
    WHERE uuid_send(e.conversation_id) = uuid_send(conversation) AND e.sender_id = sender AND e.client_id = client;
    IF seq IS NOT NULL THEN
        status := 1;
        RETURN;
    END IF;
    IF head <> version THEN
        status := 2;
        RETURN;
    END IF;
    status := 0;
    seq := last + 1;
    INSERT INTO events (conversation_id, seq, sender_id, client_id, kind, created_at, payload)
    VALUES (conversation, seq, sender, client, kind, at, payload);
    UPDATE conversations SET last_seq = seq WHERE id = conversation;
END
$body$;
-- +goose StatementEnd
