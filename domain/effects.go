package domain

// This file holds what a decision may lead to beside events of a log.

// Told is a notice with those who are to have it in their inbox. It is not stored: who has no device connected that
// subscribed to its inbox misses it.
type Told struct {
	Notice Notice
	// To are users, on all their devices.
	To []UserID
	// Watchers stands for the users who subscribed to this one (command subscribe); 0: for nobody. They get the newest
	// notice of a type about a user, a moment later; those before that were not sent yet are left out.
	Watchers UserID
	// OthersOnly leaves out the device that gave the command.
	OthersOnly bool
}

// Watch changes whom a user has subscribed to. Adding who is there already, or removing who is not, does nothing.
type Watch struct {
	User   UserID
	Add    []UserID
	Remove []UserID
}
