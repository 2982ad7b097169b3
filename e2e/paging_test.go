package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"testing"
)

// pagesOf gives a list of the administration, page by page.
func pagesOf[E any](tb testing.TB, a api, path, field string, limit int) (pages [][]E) {
	tb.Helper()
	query := url.Values{"limit": {fmt.Sprint(limit)}}
	for {
		var page map[string]json.RawMessage
		a.ok(tb, "GET", path+"?"+query.Encode(), nil).into(tb, &page)
		var entries []E
		mustDecode(tb, page[field], &entries)
		if len(entries) > limit {
			tb.Errorf("%s: a page of %d, asked for were %d", path, len(entries), limit)
		}
		pages = append(pages, entries)
		if page["nextCursor"] == nil {
			return pages
		}
		var next string
		mustDecode(tb, page["nextCursor"], &next)
		query.Set("cursor", next)
	}
}

func TestListsOfTheAdministrationPageByCursor(t *testing.T) {
	// A provider has thousands of customers, and its console shows twenty at a time.
	inWorlds(t, func(t *testing.T, w *world) {
		accounts, services, applications := []string{w.account}, []string{"Billing"}, []string{}
		for i := range 7 {
			account := fmt.Sprint(w.account, "-", i)
			w.service.ok(t, "POST", "/v1/accounts", map[string]any{"name": account})
			service := fmt.Sprint("Service", i)
			w.service.ok(t, "POST", "/v1/services", map[string]any{"name": service})
			application := fmt.Sprint("app-", i)
			w.service.ok(t, "POST", "/v1/accounts/"+w.account+"/applications", map[string]any{"name": application})
			accounts, services, applications = append(accounts, account), append(services, service), append(applications, application)
		}
		lists := map[string]struct {
			path string
			want []string
		}{
			"accounts": {"/v1/accounts", accounts}, "services": {"/v1/services", services},
			"applications": {"/v1/accounts/" + w.account + "/applications", applications},
		}
		for field, l := range lists {
			for _, limit := range []int{1, 3, len(l.want), 1000} {
				pages := pagesOf[struct{ Name string }](t, w.service, l.path, field, limit)
				var got []string
				for _, e := range slices.Concat(pages...) {
					got = append(got, e.Name)
				}
				if want := (len(l.want) + limit - 1) / limit; !slices.Equal(got, l.want) || len(pages) != want {
					t.Errorf("%s in pages of %d: %v in %d pages, want %v in %d", field, limit, got, len(pages), l.want, want)
				}
			}
			for _, query := range []string{"limit=0", "limit=1001", "limit=x", "cursor=nonsense", "cursor=dXNlcjo1", "page=2"} {
				if p := w.service.refused(t, "GET", l.path+"?"+query, nil); p.Code != "invalid-request" {
					t.Errorf("%s?%s: %+v", l.path, query, p)
				}
			}
		}
	})
}
