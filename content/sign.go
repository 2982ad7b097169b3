package content

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"

	"github.com/parley-im/parley/domain"
)

// What signed URLs are good for.
const (
	downloading = "download"
	uploading   = "upload"
)

// Download implements [domain.Links].
func (s *Service) Download(id domain.ContentID) (url string, expires int64) {
	return s.sign(downloading, id)
}

// Upload implements [domain.Links].
func (s *Service) Upload(id domain.ContentID) (url string, expires int64) {
	return s.sign(uploading, id)
}

func (s *Service) sign(purpose string, id domain.ContentID) (url string, expires int64) {
	expires = domain.Millis(s.Now().Add(s.Life))
	return fmt.Sprintf("%s%s?expires=%d&signature=%s", s.URL, domain.ContentPath(id), expires,
		base64.RawURLEncoding.EncodeToString(s.mac(purpose, id, expires))), expires
}

func (s *Service) mac(purpose string, id domain.ContentID, expires int64) []byte {
	h := hmac.New(sha256.New, s.Key[:])
	_, _ = fmt.Fprintf(h, "parley %s\n%s\n%d", purpose, id, expires) // a hash never fails
	return h.Sum(nil)
}

// VerifyDownload reports why a URL with these parameters is not good for downloading: access-denied.
func (s *Service) VerifyDownload(id domain.ContentID, expires, signature string) error {
	return s.verify(downloading, id, expires, signature)
}

// VerifyUpload is the same for uploading.
func (s *Service) VerifyUpload(id domain.ContentID, expires, signature string) error {
	return s.verify(uploading, id, expires, signature)
}

func (s *Service) verify(purpose string, id domain.ContentID, expires, signature string) error {
	until, err := strconv.ParseInt(expires, 10, 64)
	given, err2 := base64.RawURLEncoding.DecodeString(signature)
	if err != nil || err2 != nil || !hmac.Equal(given, s.mac(purpose, id, until)) {
		return domain.Errorf(domain.AccessDenied, "the URL is not one that was made here for this")
	}
	if domain.Millis(s.Now()) >= until {
		return domain.Errorf(domain.AccessDenied, "the URL has expired; ask for a new one")
	}
	return nil
}
