package persistence

import (
	"encoding/binary"

	"github.com/parley-im/parley/domain"
)

// The types below are array parameters in Postgres's binary form. The driver sends a value that has a BinaryValue method
// as it is, where its own arrays become text that takes a fifth to a third of the throughput away.
type (
	uuidArray   []domain.ConversationID
	bigintArray []int64
	intArray    []int32
	textArray   []string
	byteaArray  [][]byte
)

// Numbers of the element types in Postgres's catalogue.
const (
	oidBytea  = 17
	oidBigint = 20
	oidInt    = 23
	oidText   = 25
	oidUUID   = 2950
)

// appendArrayHeader starts an array of one dimension without NULLs, whose elements have size bytes together.
func appendArrayHeader(oid uint32, n, size int) []byte {
	if n == 0 {
		b := make([]byte, 0, 12)
		b = binary.BigEndian.AppendUint32(b, 0)
		b = binary.BigEndian.AppendUint32(b, 0)
		return binary.BigEndian.AppendUint32(b, oid)
	}
	b := make([]byte, 0, 20+4*n+size)
	b = binary.BigEndian.AppendUint32(b, 1) // dimensions
	b = binary.BigEndian.AppendUint32(b, 0) // no NULLs
	b = binary.BigEndian.AppendUint32(b, oid)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	return binary.BigEndian.AppendUint32(b, 1) // the first index
}

// BinaryValue is called by the driver.
func (a uuidArray) BinaryValue() ([]byte, error) {
	b := appendArrayHeader(oidUUID, len(a), 16*len(a))
	for i := range a {
		b = binary.BigEndian.AppendUint32(b, 16)
		b = append(b, a[i][:]...)
	}
	return b, nil
}

// BinaryValue is called by the driver.
func (a bigintArray) BinaryValue() ([]byte, error) {
	b := appendArrayHeader(oidBigint, len(a), 8*len(a))
	for _, v := range a {
		b = binary.BigEndian.AppendUint32(b, 8)
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return b, nil
}

// BinaryValue is called by the driver.
func (a intArray) BinaryValue() ([]byte, error) {
	b := appendArrayHeader(oidInt, len(a), 4*len(a))
	for _, v := range a {
		b = binary.BigEndian.AppendUint32(b, 4)
		b = binary.BigEndian.AppendUint32(b, uint32(v))
	}
	return b, nil
}

// BinaryValue is called by the driver.
func (a textArray) BinaryValue() ([]byte, error) {
	size := 0
	for _, v := range a {
		size += len(v)
	}
	b := appendArrayHeader(oidText, len(a), size)
	for _, v := range a {
		b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
		b = append(b, v...)
	}
	return b, nil
}

// BinaryValue is called by the driver.
func (a byteaArray) BinaryValue() ([]byte, error) {
	size := 0
	for _, v := range a {
		size += len(v)
	}
	b := appendArrayHeader(oidBytea, len(a), size)
	for _, v := range a {
		b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
		b = append(b, v...)
	}
	return b, nil
}
