package task

import (
	"os"
	"strconv"
	"strings"
)

// processStart tells when this process began, in clock ticks since the
// machine did, or 0 if the system does not say. Together with the process id
// it tells apart processes that have had the same id.
func processStart() uint64 {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	return parseProcessStart(string(b))
}

// parseProcessStart reads the 22nd field. The second one is the name of the
// program in parentheses and may hold anything, so counting begins after the
// last parenthesis.
func parseProcessStart(stat string) uint64 {
	const fieldsAfterName, pstartBits = 22 - 3, 36
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) <= fieldsAfterName {
		return 0
	}
	n, err := strconv.ParseUint(fields[fieldsAfterName], 10, 64)
	if err != nil {
		return 0
	}
	return n & (1<<pstartBits - 1) // a UPID has nine hex digits for it
}
