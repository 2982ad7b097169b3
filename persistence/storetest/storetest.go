// Package storetest is the conformance suite of stores: what the gateway relies on, as tests that any store can be run
// against.
//
//	func TestConformance(t *testing.T) { storetest.Run(t, backend) }
//
// Each test makes its store by Backend.New and reopens it at will. What the suite checks after each load is always the
// same: every conversation's numbers run from 1 without a gap, what was acknowledged is at the number that was named, and
// nothing is there twice. The helpers that do so ([NewWorld] and its methods) are exported for tests that need more than
// the suite does, such as a database server that is killed.
package storetest

import (
	"context"
	"testing"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

// Log is what a store's committers are.
type Log = gateway.Log

// Store is a store under test, migrated.
type Store interface {
	Reader
	gateway.Tokens
	gateway.Registry
	Attendance
	Keeper
	Lifecycle
}

// Reader is what reads.
type Reader interface {
	gateway.History
	gateway.Directory
}

// Attendance is what keeps who is connected, or was.
type Attendance interface {
	gateway.Sessions
	gateway.Wills
	gateway.Missed
	gateway.Presences
}

// Keeper is what keeps small things for the gateway and its HTTP side.
type Keeper interface {
	Setting(ctx context.Context, name string) (value []byte, found bool, err error)
	InitSetting(ctx context.Context, name string, value []byte) (stored []byte, created bool, err error)
	Recall(ctx context.Context, scope, key string) (r domain.Remembered, found bool, err error)
	Remember(ctx context.Context, scope, key string, r domain.Remembered, now int64) (domain.Remembered, error)
	Cleanup(ctx context.Context, now int64) error
	Later
}

// Later is what keeps what is for later.
type Later interface {
	ContentKeeper
	Scheduler
}

// Lifecycle is what an open store has besides.
type Lifecycle interface {
	// Committers gives the store's logs.
	Committers() []Log
	Migrate(ctx context.Context) error
	Ping(ctx context.Context) error
	Close() error
}

// Backend is a kind of store.
type Backend struct {
	// New makes an empty place for a store, which is gone when the test ends.
	New func(tb testing.TB) Place
	// Shared: several Stores may have one place open at the same time.
	Shared bool
}

// Place is where a store lives.
type Place struct {
	// URL is what a child process opens the place by.
	URL string
	// Open opens the store, and closes it when the test ends unless the test has done so.
	Open func(tb testing.TB) Store
	// Dump gives the values of all columns of all rows of all tables, as bytes or text.
	Dump func(tb testing.TB) [][]byte
}

// Run runs the suite.
func Run(t *testing.T, b Backend) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(*testing.T, Backend)
	}{
		{"SequencesHaveNoGapUnderConcurrency", sequencesHaveNoGap},
		{"RepeatedDraftsAreStoredOnce", repeatedDraftsAreStoredOnce},
		{"DraftsOnAnOldHeadAreStale", draftsOnAnOldHeadAreStale},
		{"DraftsWithoutAConversationAreMissing", draftsWithoutAConversationAreMissing},
		{"FailedBatchLeavesNoGap", failedBatchLeavesNoGap},
		{"LargestBatchFits", largestBatchFits},
		{"RangesAreExact", rangesAreExact},
		{"StoredEventsReadAsTheyWereWritten", storedEventsReadAsWritten},
		{"SimultaneousCreationsEndInOneConversation", simultaneousCreations},
		{"ADistinctConversationLosesItsKeyForGood", distinctLosesItsKey},
		{"RefusedChangesDoNotDisturbOthers", refusedChangesDoNotDisturb},
		{"LaterChangesSeeEarlierOnes", laterChangesSeeEarlierOnes},
		{"RepeatedChangesAreCommittedOnce", repeatedChangesAreCommittedOnce},
		{"RepeatedChangesMeetingAreCommittedOnce", repeatedChangesMeeting},
		{"DecisionsThatBreakTheLogAreNotStored", brokenDecisions},
		{"MembershipIntervalsFollowTheEvents", membershipIntervals},
		{"MembershipIntervalsAreTimesOfReading", readingIntervals},
		{"ParticipantsKeepTheirOrder", participantsKeepTheirOrder},
		{"MutesAreTheUsersAlone", mutesAreKept},
		{"RemovedConversationsAreInNoList", removedConversations},
		{"ConversationsAreListedPageByPage", conversationsAreListed},
		{"RewrittenMessagesLeaveNothingBehind", rewrittenMessages},
		{"RemovedMessagesLeaveNothingBehind", removedMessagesByCommand},
		{"ContentGrowsByWhatFollows", contentGrows},
		{"ContentFollowsItsMessages", contentFollowsMessages},
		{"ContentIsNotRemovedUnderAMessage", contentIsNotRemovedUnderAMessage},
		{"AnnouncementsWaitForTheirReaders", announcementsWait},
		{"AnnouncementsAreMadeOnce", announcementsAreMadeOnce},
		{"AnnouncementsForAThousandAreOneTransaction", announcementsForAThousand},
		{"ScheduledMessagesWaitForTheirTime", scheduledMessagesWait},
		{"ScheduledMessagesKeepTheirOrder", scheduledKeepsItsOrder},
		{"ScheduledTwiceIsScheduledOnce", scheduledOnce},
		{"CancellingMeetsSendingAndOneWins", cancellingMeetsSending},
		{"ScheduledMessagesAreListedByTime", scheduledIsListed},
		{"ContentOfScheduledMessagesStays", scheduledContentStays},
		{"UnreadMessagesAreCountedExactly", unreadIsExact},
		{"UnreadMessagesAreCountedUpToAThousand", unreadCountsToAThousand},
		{"UnreadConversationsComeNewestFirst", unreadComesNewestFirst},
		{"ReadMarksAreTheReadersAlone", readMarksAreTheReaders},
		{"ReceiptsFollowMembership", receiptsFollowMembership},
		{"RemovedMessagesMentionNobody", removedMessagesMentionNobody},
		{"HeadsHoldWhatTheNeedsName", headsHoldWhatIsNeeded},
		{"HeadsAreConsistentUnderChanges", headsAreConsistent},
		{"OwnRecordsAreRewrittenWhole", ownRecords},
		{"ChangesOfOneRecordDoNotOverlap", ownRecordsMeeting},
		{"SubscriptionsToUsersLast", watches},
		{"LastSeenOutlivesItsNode", lastSeen},
		{"UsersAreFoundAndKeptApart", usersAreFound},
		{"SearchFindsByNameAndTree", searchFinds},
		{"DeletedUsersKeepTheirNumberAndName", deletedUsers},
		{"ServicesAreKnownByTheirKey", services},
		{"AccountsFormTreesOfOneLevel", accounts},
		{"SettingsAreThoseOfTheAccount", accountSettings},
		{"OnlyEmptyAccountsAreDeleted", emptyAccounts},
		{"RefreshTokensWorkOnce", refreshTokensWorkOnce},
		{"ReusedRefreshTokenEndsTheLogin", reusedRefreshToken},
		{"RevokedUsersAreOut", revokedUsers},
		{"EndingsAreTold", endingsAreTold},
		{"LoginsAreBounded", loginsAreBounded},
		{"UsedTokensAreBounded", usedTokensAreBounded},
		{"OneTimeSecretsAreMadeOnce", oneTimeSecrets},
		{"OneTimeKeysWorkOnce", oneTimeKeysWorkOnce},
		{"SigningKeysAreKept", signingKeys},
		{"FirstSettingWins", firstSettingWins},
		{"FirstAnswerIsRemembered", firstAnswerIsRemembered},
		{"CleanupRemovesWhatHasExpired", cleanup},
		{"SessionsExpireToTheMillisecond", sessionsExpire},
		{"CleanStartLeavesNothingBehind", cleanStart},
		{"SessionsOfOneConnectionEndWithIt", sessionsOfOneConnection},
		{"RepeatedOpeningsHaveOneOutcome", repeatedOpenings},
		{"SimultaneousOpeningsMakeOneSession", simultaneousOpenings},
		{"OlderConnectionsEndNothing", olderConnections},
		{"DevicesAndUsersAreKeptApart", devicesAreApart},
		{"PositionsStartAtTheEnd", positionsStartAtTheEnd},
		{"BehindFollowsMembership", behindFollowsMembership},
		{"BehindComesInPagesWithoutGaps", behindComesInPages},
		{"UndeliveredFollowsMarksAndMembership", undeliveredFollowsMarks},
		{"UndeliveredComesInPagesWithoutGaps", undeliveredComesInPages},
		{"NewestMessagesAreCountedExactly", newestMessagesCount},
		{"PositionsNeverGoBack", positionsNeverGoBack},
		{"MarksAndChangesDoNotDisturbEachOther", marksMeetChanges},
		{"SessionsOfDeadNodesExpire", deadNodes},
		{"SessionsOfDeadNodesExpireUnnoticed", deadNodesUnnoticed},
		{"CleanupRemovesExpiredSessions", cleanupOfSessions},
		{"DeletedUsersHaveNoSessions", deletedUsersHaveNoSessions},
		{"WillsAreTakenOnce", willsAreTakenOnce},
		{"WillsAreKeptWhole", willsAreKeptWhole},
		{"WillsEndOnce", willsEndOnce},
		{"ReturningDevicesSettleTheirWills", willsOfReturningDevices},
		{"WillsOfDeadNodesAreDue", willsOfDeadNodes},
		{"SessionsSurviveARestart", sessionsSurviveARestart},
		{"SessionsBearEverythingAtOnce", sessionsUnderLoad},
		{"SessionsMatchTheModel", sessionsMatchTheModel},
		{"ReopenedStoreGoesOn", reopenedStoreGoesOn},
		{"AcknowledgedEventsSurviveKill9", acknowledgedEventsSurviveKill9},
		{"MatchesTheModel", matchesTheModel},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, b) })
	}
}

// open makes a place and opens a store there.
func open(tb testing.TB, b Backend) Store {
	tb.Helper()
	return b.New(tb).Open(tb)
}
