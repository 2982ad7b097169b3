package domain

// This file holds what a decision may lead to beside events of a log.

// Told is a notice with those who are to have it in their inbox. It is not stored: who has no device connected that
// subscribed to its inbox misses it.
type Told struct {
	Notice Notice
	// To are users, on all their devices.
	To []UserID
	// OthersOnly leaves out the device that gave the command.
	OthersOnly bool
}
