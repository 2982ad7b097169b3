package domain

// This file holds the words of logging in and of administration, which the gateway and the HTTP side share.

// Tokens let a user act without its password: a short-lived access token, and a refresh token to get the next pair.
type Tokens struct {
	AccessToken    string `json:"accessToken" doc:"Bearer token for HTTP, and password for MQTT."`
	AccessExpires  int64  `json:"accessExpires" doc:"Milliseconds since 1970."`
	RefreshToken   string `json:"refreshToken" doc:"Gets the next pair, once; using it a second time ends the login."`
	RefreshExpires int64  `json:"refreshExpires" doc:"Milliseconds since 1970."`
}

// Login is what a successful login answers.
type Login struct {
	Tokens
	User User `json:"user"`
}

// OneTimeKey is a key with which a user may log in once.
type OneTimeKey struct {
	Key     string `json:"key" doc:"What the backend computes the hash of."`
	Expires int64  `json:"expires" doc:"Milliseconds since 1970."`
}

// UserRequest is a user as it shall be created.
type UserRequest struct {
	Username    Username  `json:"username" doc:"Full name, name@application.account."`
	DisplayName string    `json:"displayName,omitempty" doc:"Up to 256 characters."`
	Password    *string   `json:"password,omitempty" doc:"1 to 1024 bytes; absent: the user cannot log in by password."`
	CustomData  RawObject `json:"customData,omitempty" doc:"Whatever the application keeps about the user, for all to see."`
}

// UserEdit changes a user; what is absent or null stays as it is.
type UserEdit struct {
	DisplayName *string    `json:"displayName,omitempty" doc:"Up to 256 characters; empty: none."`
	Password    *string    `json:"password,omitempty" doc:"1 to 1024 bytes. A new password ends every login of the user."`
	CustomData  *RawObject `json:"customData,omitempty" doc:"Replaces the whole; {} clears it."`
}

// DecodeObject decodes a request's JSON object into v, which points to a struct: no unknown fields, nothing after the
// object, valid UTF-8. Its errors are invalid-request and name the field where they can.
func DecodeObject(payload []byte, v any) error {
	_, err := decodeStrict(payload, v)
	return err
}
