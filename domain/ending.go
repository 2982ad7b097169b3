package domain

// Ending says that logins of a user or a service were ended: it was deleted, its tokens were revoked, its password or key
// replaced. Which of its sessions that ends, what proved them tells (Principal.Issued, Principal.Proof).
type Ending struct {
	// User, or Service with the main account of its tree.
	User    UserID
	Service ServiceID
	Root    AccountID
	// At is when, in milliseconds since 1970; of one user or service always later than before.
	At int64
}
