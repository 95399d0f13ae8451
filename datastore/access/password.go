package access

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sync/semaphore"
)

// Passwords are kept as $argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$HASH, both
// in base64 without padding. The numbers are kept with each hash, so that
// those for new ones can change; what an import may ask for is capped.
const (
	hashLen     = 32
	saltLen     = 16
	saltMax     = 64
	memoryMax   = 256 << 10 // KiB
	passesMax   = 10
	lanesMax    = 8
	hashTextMax = 256

	// hashesAtOnce bounds the memory that logging in can take: two times
	// 64 MiB.
	hashesAtOnce = 2
	// hashesWaiting is how many may wait for their turn, which takes some
	// seconds then; as many again as friendsWaiting if they have logged in
	// from the same address before.
	hashesWaiting  = 256
	friendsWaiting = 64
)

// cost is what a hash takes.
type cost struct {
	memory, passes uint32 // KiB; number
	lanes          uint8
}

// passwordHash is a hash taken apart.
type passwordHash struct {
	cost
	salt, sum []byte
}

func (h passwordHash) String() string {
	e := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, h.lanes,
		e.EncodeToString(h.salt), e.EncodeToString(h.sum))
}

// parseHash reads the text form. Its errors do not repeat any of it.
func parseHash(s string) (passwordHash, error) {
	var h passwordHash
	f := strings.Split(s, "$")
	if len(s) > hashTextMax || len(f) != 6 || f[0] != "" || f[1] != "argon2id" || f[2] != "v="+strconv.Itoa(argon2.Version) {
		return h, errors.New("not in the form of argon2id")
	}
	var err error
	if h.cost, err = parseCost(f[3]); err != nil {
		return h, err
	}
	var errSalt, errSum error
	h.salt, errSalt = base64.RawStdEncoding.DecodeString(f[4])
	h.sum, errSum = base64.RawStdEncoding.DecodeString(f[5])
	if errSalt != nil || errSum != nil || len(h.salt) < saltLen/2 || len(h.salt) > saltMax || len(h.sum) != hashLen {
		return h, errors.New("salt or hash of a wrong length")
	}
	return h, nil
}

func parseCost(s string) (cost, error) {
	names := []string{"m=", "t=", "p="}
	most := []uint64{memoryMax, passesMax, lanesMax}
	f := strings.Split(s, ",")
	if len(f) != len(names) {
		return cost{}, errors.New("want three costs")
	}
	var n [3]uint64
	for i, name := range names {
		digits, ok := strings.CutPrefix(f[i], name)
		v, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil || v < 1 || v > most[i] {
			return cost{}, fmt.Errorf("cost %q is not within 1..%d", name[:1], most[i])
		}
		n[i] = v
	}
	return cost{memory: uint32(n[0]), passes: uint32(n[1]), lanes: uint8(n[2])}, nil
}

// sumOf is the expensive part.
func (h passwordHash) sumOf(password string) []byte {
	return argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.lanes, hashLen)
}

// hasher hashes passwords, only a few at once.
type hasher struct {
	cost    cost
	slots   *semaphore.Weighted
	waiting atomic.Int64
}

// newHasher makes one whose hashes take so much memory, in KiB; 0 is 64 MiB.
func newHasher(memory uint32) *hasher {
	if memory == 0 {
		memory = 64 << 10
	}
	return &hasher{cost: cost{memory: memory, passes: 1, lanes: 1}, slots: semaphore.NewWeighted(hashesAtOnce)}
}

// run calls fn when there is a slot, or returns ErrThrottled if more than most
// wait for one already.
func (h *hasher) run(ctx context.Context, most int64, fn func() error) error {
	defer h.waiting.Add(-1)
	if h.waiting.Add(1) > hashesAtOnce+most {
		return ErrThrottled{Wait: time.Second}
	}
	if err := h.slots.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("wait for a turn: %w", err)
	}
	defer h.slots.Release(1)
	return fn()
}

// hash makes the text form for a new password.
func (h *hasher) hash(password string, random *source) (string, error) {
	p := passwordHash{cost: h.cost, salt: make([]byte, saltLen)}
	if err := random.read(p.salt); err != nil {
		return "", err
	}
	err := h.run(context.Background(), hashesWaiting+friendsWaiting, func() error {
		p.sum = p.sumOf(password)
		return nil
	})
	return p.String(), err
}

// matches compares a password with the text form. With "" or an unreadable
// text it takes as long as with any other and says no. The caller holds a
// slot.
func (h *hasher) matches(password, text string) bool {
	p, err := parseHash(text)
	if err != nil {
		p = passwordHash{cost: h.cost, salt: make([]byte, saltLen), sum: make([]byte, hashLen)}
	}
	same := subtle.ConstantTimeCompare(p.sumOf(password), p.sum) == 1
	return same && err == nil
}
