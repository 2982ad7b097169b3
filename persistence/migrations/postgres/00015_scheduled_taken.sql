-- +goose Up

-- What of a conversation is held by a gateway that sends it: nothing else of the conversation is taken meanwhile.
CREATE INDEX scheduled_taken ON scheduled (conversation_id, taken_until) WHERE state = 0 AND taken_until IS NOT NULL;
