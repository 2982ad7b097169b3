package gateway

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-im/parley/domain"
)

func TestServicesAdministerTheirOwnTreeOnly(t *testing.T) {
	// Whatever a service may not know of must answer as if it were not there.
	o := newOffice(t)
	billing, _ := o.service("acme", "billing")
	o.service("globex", "spy")
	alice, eve := o.user("alice@chat.acme"), o.user("eve@chat.globex")
	if _, err := o.CreateAccount(t.Context(), billing, "acme-labs", ""); err != nil {
		t.Fatalf("child account: %v", err)
	}
	if _, err := o.CreateUser(t.Context(), billing, domain.UserRequest{Username: "bob@new.acme-labs"}); err != nil {
		t.Errorf("user in a child account: %v", err)
	}
	for what, call := range map[string]struct {
		err  error
		want domain.Code
	}{
		"user elsewhere":       {second(o.CreateUser(t.Context(), billing, domain.UserRequest{Username: "x@chat.globex"})), domain.AccessDenied},
		"user nowhere":         {second(o.CreateUser(t.Context(), billing, domain.UserRequest{Username: "x@chat.nowhere"})), domain.AccessDenied},
		"user by a user":       {second(o.CreateUser(t.Context(), alice, domain.UserRequest{Username: "x@chat.acme"})), domain.AccessDenied},
		"edit elsewhere":       {second(o.UpdateUser(t.Context(), billing, "eve@chat.globex", domain.UserEdit{})), domain.UserNotFound},
		"edit nobody":          {second(o.UpdateUser(t.Context(), billing, "nobody@chat.acme", domain.UserEdit{})), domain.UserNotFound},
		"edit oneself":         {second(o.UpdateUser(t.Context(), eve, "eve@chat.globex", domain.UserEdit{})), domain.AccessDenied},
		"delete elsewhere":     {o.DeleteUser(t.Context(), billing, "eve@chat.globex"), domain.UserNotFound},
		"delete by a user":     {o.DeleteUser(t.Context(), alice, "alice@chat.acme"), domain.AccessDenied},
		"service elsewhere":    {third(o.CreateService(t.Context(), billing, "globex", "mole")), domain.AccessDenied},
		"rotate elsewhere":     {third(o.RotateService(t.Context(), billing, "globex", "spy")), domain.NotFound},
		"delete service":       {o.DeleteService(t.Context(), billing, "globex", "spy"), domain.NotFound},
		"service by a user":    {third(o.CreateService(t.Context(), alice, "acme", "mine")), domain.AccessDenied},
		"main account":         {second(o.CreateAccount(t.Context(), billing, "other", "globex")), domain.NotFound},
		"grandchild":           {second(o.CreateAccount(t.Context(), billing, "deep", "acme-labs")), domain.InvalidRequest},
		"taken name":           {second(o.CreateAccount(t.Context(), billing, "globex", "")), domain.AlreadyExists},
		"account by a user":    {second(o.CreateAccount(t.Context(), alice, "mine", "")), domain.AccessDenied},
		"delete an account":    {o.DeleteAccount(t.Context(), billing, "globex"), domain.AccessDenied},
		"delete no account":    {o.DeleteAccount(t.Context(), billing, "nowhere"), domain.AccessDenied},
		"delete by no name":    {o.DeleteAccount(t.Context(), admin(), ""), domain.InvalidRequest},
		"account gone by user": {o.DeleteAccount(t.Context(), alice, "acme"), domain.AccessDenied},
		"account elsewhere":    {second(o.Account(t.Context(), billing, "globex")), domain.AccessDenied},
		"account to a user":    {second(o.Account(t.Context(), alice, "acme")), domain.AccessDenied},
		"settings elsewhere":   {second(o.EditSettings(t.Context(), billing, "globex", domain.SettingsEdit{})), domain.AccessDenied},
		"settings by a user":   {second(o.EditSettings(t.Context(), alice, "acme", domain.SettingsEdit{})), domain.AccessDenied},
		"settings of nothing":  {second(o.EditSettings(t.Context(), admin(), "nowhere", domain.SettingsEdit{})), domain.NotFound},
		"applications":         {second(o.Applications(t.Context(), billing, "globex")), domain.AccessDenied},
		"delete application":   {o.DeleteApplication(t.Context(), billing, "globex", "chat"), domain.AccessDenied},
		"application by user":  {o.DeleteApplication(t.Context(), alice, "acme", "chat"), domain.AccessDenied},
		"application":          {o.CreateApplication(t.Context(), billing, "globex", "chat2"), domain.AccessDenied},
		"services by a user":   {second(o.Services(t.Context(), alice, domain.TreeQuery{})), domain.AccessDenied},
		"accounts by a user":   {second(o.Accounts.Accounts(t.Context(), alice, domain.TreeQuery{})), domain.AccessDenied},
		"accounts by nobody":   {second(o.Accounts.Accounts(t.Context(), domain.Principal{}, domain.TreeQuery{})), domain.NotAuthenticated},
		"search by nobody":     {second(o.SearchUsers(t.Context(), domain.Principal{}, domain.UserQuery{Limit: 1})), domain.NotAuthenticated},
		"look-up elsewhere":    {second(o.FindUsers(t.Context(), alice, []domain.UserRef{{UserID: eve.User}})), domain.UserNotFound},
		"look-up of too many":  {second(o.FindUsers(t.Context(), alice, make([]domain.UserRef, 51))), domain.InvalidRequest},
		"user that is there":   {second(o.CreateUser(t.Context(), billing, domain.UserRequest{Username: "alice@chat.acme"})), domain.AlreadyExists},
		"user without a name":  {second(o.CreateUser(t.Context(), billing, domain.UserRequest{})), domain.InvalidRequest},
		"service without name": {third(o.CreateService(t.Context(), billing, "", "")), domain.InvalidRequest},
		"page without end":     {second(o.SearchUsers(t.Context(), alice, domain.UserQuery{Limit: 1000})), domain.InvalidRequest},
	} {
		wantCode(t, what, call.err, call.want)
	}
	found, err := o.SearchUsers(t.Context(), alice, domain.UserQuery{Limit: 10})
	if err != nil || !slices.Equal(namesOf(found), []string{"alice@chat.acme", "bob@new.acme-labs"}) {
		t.Errorf("a user's search finds %v, %v", namesOf(found), err)
	}
	found, err = o.SearchUsers(t.Context(), admin(), domain.UserQuery{Limit: 10})
	if err != nil || len(found) != 3 {
		t.Errorf("the admin's search finds %v, %v", namesOf(found), err)
	}
	list, err := o.Services(t.Context(), billing, domain.TreeQuery{})
	if err != nil || len(list) != 1 || list[0].Name != "billing" {
		t.Errorf("services %v, %v", list, err)
	}
}

func second[T any](_ T, err error) error { return err }

func third[T, U any](_ T, _ U, err error) error { return err }

func namesOf(users []domain.User) []string {
	names := make([]string, len(users))
	for i, u := range users {
		names[i] = string(u.Username)
	}
	return names
}

func TestARotatedKeyEndsTheOldOne(t *testing.T) {
	o := newOffice(t)
	billing, old := o.service("acme", "billing")
	_, fresh, err := o.RotateService(t.Context(), billing, "", "billing")
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Bearer(t.Context(), old)
	wantCode(t, "old key", err, domain.NotAuthenticated)
	if p, err := o.Bearer(t.Context(), fresh); err != nil || p != billing {
		t.Errorf("new key: %+v, %v", p, err)
	}
	if err := o.DeleteService(t.Context(), admin(), "acme", "billing"); err != nil {
		t.Fatal(err)
	}
	_, err = o.Bearer(t.Context(), fresh)
	wantCode(t, "key of a deleted service", err, domain.NotAuthenticated)
	if len(o.ended) != 2 || o.ended[0].Service != billing.Service || o.ended[1].Service != billing.Service {
		t.Errorf("the sessions of %+v were to be closed", o.ended)
	}
}

func TestPasswordsAndRecordsHaveBounds(t *testing.T) {
	o := newOffice(t)
	o.user("alice@chat.acme")
	long := domain.RawObject(`{"x":"` + strings.Repeat("y", domain.MaxUserData) + `"}`)
	for what, e := range map[string]domain.UserEdit{
		"empty password":      {Password: new("")},
		"long password":       {Password: new(strings.Repeat("x", 1025))},
		"password with NUL":   {Password: new("a\x00b")},
		"password not UTF-8":  {Password: new("a\xff")},
		"long display name":   {DisplayName: new(strings.Repeat("ü", 257))},
		"display name of NUL": {DisplayName: new("\x00")},
		"large customData":    {CustomData: &long},
	} {
		_, err := o.UpdateUser(t.Context(), admin(), "alice@chat.acme", e)
		wantCode(t, what, err, domain.InvalidRequest)
	}
	longest := strings.Repeat("ü", 512)
	if _, err := o.UpdateUser(t.Context(), admin(), "alice@chat.acme", domain.UserEdit{Password: &longest}); err != nil {
		t.Fatal(err)
	}
	o.clock = o.clock.Add(time.Millisecond)
	if _, err := o.Login(t.Context(), "alice@chat.acme", longest); err != nil {
		t.Errorf("login with the longest password: %v", err)
	}
}

func TestAnEditLeavesWhatItDoesNotName(t *testing.T) {
	o := newOffice(t)
	o.user("alice@chat.acme")
	data := domain.RawObject(`{"a":1}`)
	u, err := o.UpdateUser(t.Context(), admin(), "alice@chat.acme", domain.UserEdit{DisplayName: new("Alice"), CustomData: &data})
	if err != nil || u.DisplayName != "Alice" || !u.CustomData.Equal(data) {
		t.Fatalf("%+v, %v", u, err)
	}
	u, err = o.UpdateUser(t.Context(), admin(), "alice@chat.acme", domain.UserEdit{})
	if err != nil || u.DisplayName != "Alice" || !u.CustomData.Equal(data) {
		t.Errorf("after an empty edit: %+v, %v", u, err)
	}
	none := domain.RawObject(`{ }`)
	u, err = o.UpdateUser(t.Context(), admin(), "alice@chat.acme", domain.UserEdit{CustomData: &none})
	if err != nil || u.DisplayName != "Alice" || u.CustomData != nil {
		t.Errorf("after {}: %+v, %v", u, err)
	}
	if len(o.ended) != 0 {
		t.Error("an edit without password ended sessions")
	}
}
