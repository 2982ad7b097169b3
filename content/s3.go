package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3 keeps pieces as objects of a bucket in a store that speaks Amazon's S3 protocol.
type S3 struct {
	client *minio.Client
	bucket string
	prefix string
}

// S3Options configure [OpenS3].
type S3Options struct {
	// URL is s3://bucket/prefix?endpoint=https://host&region=name. Without an endpoint it is Amazon's own.
	URL string
	// AccessKey and SecretKey sign requests. Without them they come from where Amazon's tools look: the environment, its
	// configuration files, the role of the machine.
	AccessKey, SecretKey string
}

// OpenS3 makes sure that the bucket is there.
func OpenS3(ctx context.Context, o S3Options) (*S3, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "s3" || u.Host == "" {
		return nil, errors.New("content: expected s3://bucket/prefix?endpoint=https://host&region=name")
	}
	endpoint, err := url.Parse(u.Query().Get("endpoint"))
	if err != nil || endpoint.Path != "" && endpoint.Path != "/" {
		return nil, errors.New("content: expected the endpoint of an S3 store to be https://host:port")
	}
	if endpoint.Host == "" {
		endpoint = &url.URL{Scheme: "https", Host: "s3.amazonaws.com"}
	}
	creds := credentials.NewStaticV4(o.AccessKey, o.SecretKey, "")
	if o.AccessKey == "" {
		creds = credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{Client: &http.Client{Timeout: 10 * time.Second}},
		})
	}
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds: creds, Secure: endpoint.Scheme == "https", Region: u.Query().Get("region"), MaxRetries: 3,
	})
	if err != nil {
		return nil, fmt.Errorf("the store for content: %w", err)
	}
	s := &S3{client: client, bucket: u.Host, prefix: strings.Trim(u.Path, "/")}
	if s.prefix != "" {
		s.prefix += "/"
	}
	there, err := client.BucketExists(ctx, s.bucket)
	if err == nil && !there {
		err = fmt.Errorf("there is no bucket %q", s.bucket)
	}
	if err != nil {
		return nil, fmt.Errorf("the store for content: %w", err)
	}
	return s, nil
}

// Create implements [Blobs]. An object is stored whole or not at all, so its bytes wait on the local disk until they are all
// there.
func (s *S3) Create(_ context.Context, key string) (Writer, error) {
	f, err := os.CreateTemp("", "parley-content-*")
	if err != nil {
		return nil, err
	}
	// Nobody else needs its name: it is gone with the process, however that ends. Where that is not possible it is removed
	// later.
	_ = os.Remove(f.Name())
	return &s3Writer{File: f, s: s, key: key}, nil
}

type s3Writer struct {
	*os.File
	s   *S3
	key string
}

// Commit implements [Writer].
func (w *s3Writer) Commit(ctx context.Context) error {
	defer w.Abort()
	size, err := w.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = w.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	_, err = w.s.client.PutObject(ctx, w.s.bucket, w.s.prefix+w.key, w.File, size, minio.PutObjectOptions{
		ContentType: "application/octet-stream", DisableMultipart: true,
	})
	return err
}

// Abort implements [Writer].
func (w *s3Writer) Abort() {
	_ = w.File.Close() // it was only to be read again
	_ = os.Remove(w.Name())
}

// Open implements [Blobs].
func (s *S3) Open(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	o := minio.GetObjectOptions{}
	if err := o.SetRange(offset, offset+size-1); err != nil {
		return nil, err
	}
	// Not GetObject, which asks once more for every position.
	object, _, _, err := minio.Core{Client: s.client}.GetObject(ctx, s.bucket, s.prefix+key, o)
	return object, err
}

// Remove implements [Blobs].
func (s *S3) Remove(ctx context.Context, key string) error {
	return s.client.RemoveObject(ctx, s.bucket, s.prefix+key, minio.RemoveObjectOptions{})
}
