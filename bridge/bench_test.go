package bridge_test

import (
	"net/http/httptest"
	"testing"

	"github.com/parley-im/parley/domain"
)

func BenchmarkSendMessage(b *testing.B) {
	w := newWorld(b, nil)
	w.answers(domain.Result{Message: &domain.Message{Seq: 3, Content: domain.Content{Text: "hello"}}})
	b.ReportAllocs()
	for b.Loop() {
		w.forget(b)
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, w.request(serviceKey, "POST", "/v1/conversations/"+someID+"/messages", `{"text":"hello"}`))
		if rec.Code != 201 {
			b.Fatal(rec.Code, rec.Body)
		}
	}
}
