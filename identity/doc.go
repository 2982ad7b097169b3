// Package identity knows who somebody is by what others say: tokens of other issuers, and the operator's own login service.
//
// Both fail closed: what cannot be proven now is unavailable, never true. Tokens, passwords and the answers of others are
// not logged and no part of an error.
package identity
