package api

import (
	"encoding/json"

	"holdfast/datastore/wire"
)

// Times in answers are Unix seconds and sizes bytes; a pointer is null or absent where
// nothing is known.

// Subdir is a place below another that GET lists.
type Subdir struct {
	Subdir string `json:"subdir"`
}

// VersionItem tells which server this is. Only a Holdfast server has Holdfast.
type VersionItem struct {
	Version  string `json:"version"`
	Release  string `json:"release"`
	RepoID   string `json:"repoid"`
	Holdfast string `json:"holdfast"`
}

// Pong is the answer to a ping.
type Pong struct {
	Pong bool `json:"pong"`
}

// RealmItem is where users come from.
type RealmItem struct {
	Realm   string `json:"realm"`
	Type    string `json:"type"`
	Comment string `json:"comment"`
	Default bool   `json:"default,omitempty"`
}

// Ticket is the proof of a login. Ticket and CSRF are secret; for a browser the ticket is
// in a cookie, and Info says what of it is no secret.
type Ticket struct {
	User   string `json:"username"`
	CSRF   string `json:"CSRFPreventionToken"`
	Ticket string `json:"ticket,omitempty"`
	Info   string `json:"ticket-info,omitempty"`
}

// UserItem is a user. Expire is when the user stops being able to do anything; 0 is never.
type UserItem struct {
	ID        wire.AuthID `json:"userid"`
	Comment   string      `json:"comment,omitempty"`
	FirstName string      `json:"firstname,omitempty"`
	LastName  string      `json:"lastname,omitempty"`
	Email     string      `json:"email,omitempty"`
	Enabled   bool        `json:"enable"`
	Expire    int64       `json:"expire"`
	Tokens    []TokenItem `json:"tokens,omitempty"`
}

// UnmarshalJSON implements json.Unmarshaler: who is not said to be disabled is enabled.
func (u *UserItem) UnmarshalJSON(b []byte) error {
	type plain UserItem
	p := plain{Enabled: true}
	err := json.Unmarshal(b, &p)
	*u = UserItem(p)
	return err
}

// TokenItem is a token. Name is given in lists of tokens only.
type TokenItem struct {
	ID      wire.AuthID `json:"tokenid"`
	Comment string      `json:"comment,omitempty"`
	Enabled bool        `json:"enable"`
	Expire  int64       `json:"expire"`
	Name    string      `json:"token-name,omitempty"`
}

// UnmarshalJSON implements json.Unmarshaler: what is not said to be disabled is enabled.
func (t *TokenItem) UnmarshalJSON(b []byte) error {
	type plain TokenItem
	p := plain{Enabled: true}
	err := json.Unmarshal(b, &p)
	*t = TokenItem(p)
	return err
}

// NewToken is a token that was made, with its secret.
type NewToken struct {
	ID     wire.AuthID `json:"tokenid"`
	Secret string      `json:"value"`
}

// NewSecret is the new secret of a token, absent if there is none.
type NewSecret struct {
	Secret string `json:"secret"`
}

// ACLItem is an access rule.
type ACLItem struct {
	Path      string      `json:"path"`
	ID        wire.AuthID `json:"ugid"`
	Type      string      `json:"ugid_type"`
	Propagate bool        `json:"propagate"`
	Role      string      `json:"roleid"`
}

// RoleItem is a role.
type RoleItem struct {
	Name       string   `json:"roleid"`
	Privileges []string `json:"privs"`
	Comment    string   `json:"comment,omitempty"`
}

// Permissions are privileges by path, each with whether it counts below the path, too.
type Permissions map[string]map[string]bool

// QuotaItem bounds what a subject may store; 0 is no bound.
type QuotaItem struct {
	Subject         string `json:"subject"`
	BytesMax        uint64 `json:"bytes-max,omitempty"`
	SnapshotsPerDay uint32 `json:"snapshots-per-day,omitempty"`
}

// NodeItem is a node of a server.
type NodeItem struct {
	Node string `json:"node"`
}

// NodeStatus is how a machine is.
type NodeStatus struct {
	CPU      float64   `json:"cpu"`
	Wait     float64   `json:"wait"`
	LoadAvg  []float64 `json:"loadavg"`
	Uptime   int64     `json:"uptime"`
	Memory   Memory    `json:"memory"`
	Swap     Memory    `json:"swap"`
	Root     Usage     `json:"root"`
	KVersion string    `json:"kversion"`
	CPUInfo  CPUInfo   `json:"cpuinfo"`
	Info     NodeInfo  `json:"info"`
}

// Memory is how much memory there is and taken.
type Memory struct {
	Total uint64 `json:"total"`
	Free  uint64 `json:"free"`
	Used  uint64 `json:"used"`
}

// CPUInfo tells of the processors of a machine.
type CPUInfo struct {
	Model   string `json:"model"`
	Sockets int    `json:"sockets"`
	CPUs    int    `json:"cpus"`
}

// NodeInfo has the fingerprint of a server's certificate.
type NodeInfo struct {
	Fingerprint string `json:"fingerprint"`
}

// Subscription tells that there is none.
type Subscription struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// Identity tells an installation from others.
type Identity struct {
	ID string `json:"pbs-instance-id"`
}

// TaskItem is a task in a list. One that runs has neither End nor Status.
type TaskItem struct {
	UPID   string  `json:"upid"`
	Node   string  `json:"node"`
	PID    uint32  `json:"pid"`
	PStart uint64  `json:"pstart"`
	Start  int64   `json:"starttime"`
	Type   string  `json:"worker_type"`
	ID     *string `json:"worker_id"`
	User   string  `json:"user"`
	End    int64   `json:"endtime,omitempty"`
	Status string  `json:"status,omitempty"`
}

// Worker is what the task is about, "" if that is everything.
func (t TaskItem) Worker() string {
	if t.ID == nil {
		return ""
	}
	return *t.ID
}

// TaskStatus is how a task goes: Status is "running" or "stopped", and Exit how it ended.
type TaskStatus struct {
	UPID    string  `json:"upid"`
	Node    string  `json:"node"`
	PID     uint32  `json:"pid"`
	PStart  uint64  `json:"pstart"`
	Start   int64   `json:"starttime"`
	Type    string  `json:"type"`
	ID      *string `json:"id"`
	User    string  `json:"user"`
	TokenID string  `json:"tokenid,omitempty"`
	Status  string  `json:"status"`
	Exit    *string `json:"exitstatus,omitempty"`
	End     int64   `json:"endtime,omitempty"`
}

// LogLine is a line of a task's log, counted from 1.
type LogLine struct {
	N    int    `json:"n"`
	Text string `json:"t"`
}
