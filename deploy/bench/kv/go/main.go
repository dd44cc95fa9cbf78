// Command kv-go is the benchmark's client on the official clientv3: what users run. It loads one
// server with clients in a closed loop, or counts how long a put takes to reach many watchers, and
// prints one line of JSON with the same fields as the lean client.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

type outcome struct {
	Ops         int     `json:"ops"`
	Errors      int64   `json:"errors"`
	Seconds     float64 `json:"seconds"`
	P50Us       int64   `json:"p50_us"`
	P99Us       int64   `json:"p99_us"`
	P999Us      int64   `json:"p999_us"`
	MaxUs       int64   `json:"max_us"`
	ServerCPUMs int64   `json:"server_cpu_ms"`
	ClientCPUMs int64   `json:"client_cpu_ms"`
}

var (
	endpoint    = flag.String("endpoint", "127.0.0.1:2379", "server; of several members, one of each, separated by commas")
	operation   = flag.String("op", "put", "put, range, serializable-range, txn, mixed or watch")
	clients     = flag.Int("clients", 500, "requests in flight")
	connections = flag.Int("connections", 50, "connections that the clients share")
	valueBytes  = flag.Int("value-bytes", 256, "size of a value")
	keys        = flag.Int("keys", 100_000, "keys are 0 up to this number")
	warmupMs    = flag.Int("warmup-ms", 500, "time before the measured window")
	windowMs    = flag.Int("window-ms", 3_000, "measured window")
	watchers    = flag.Int("watchers", 10_000, "watchers on one key")
	puts        = flag.Int("puts", 20, "puts that the watchers see")
	serverPids  = flag.String("server-pid", "", "whose processor time to report; several are separated by commas")
)

func main() {
	flag.Parse()
	result, err := run()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kv-go:", err)
		os.Exit(1)
	}
}

func run() (*outcome, error) {
	open := min(*connections, *clients)
	if *operation == "watch" {
		open = min(*connections, *watchers)
	}
	endpoints := strings.Split(*endpoint, ",")
	pool := make([]*clientv3.Client, open)
	for i := range pool {
		client, err := clientv3.New(clientv3.Config{
			Endpoints:   []string{endpoints[i%len(endpoints)]},
			DialTimeout: 5 * time.Second,
		})
		if err != nil {
			return nil, err
		}
		defer client.Close()
		pool[i] = client
	}
	if *operation == "watch" {
		return watch(pool)
	}
	return load(pool)
}

// request returns what a client does in its turn-th request.
func request(client *clientv3.Client, value string) (func(ctx context.Context, turn int) error, error) {
	key := func() string { return fmt.Sprintf("bench/%010d", rand.IntN(*keys)) }
	put := func(ctx context.Context) error {
		_, err := client.Put(ctx, key(), value)
		return err
	}
	get := func(ctx context.Context, options ...clientv3.OpOption) error {
		_, err := client.Get(ctx, key(), options...)
		return err
	}
	switch *operation {
	case "put":
		return func(ctx context.Context, _ int) error { return put(ctx) }, nil
	case "range":
		return func(ctx context.Context, _ int) error { return get(ctx) }, nil
	case "serializable-range":
		return func(ctx context.Context, _ int) error { return get(ctx, clientv3.WithSerializable()) }, nil
	case "mixed":
		return func(ctx context.Context, turn int) error {
			if turn%5 == 4 {
				return put(ctx)
			}
			return get(ctx)
		}, nil
	case "txn":
		return func(ctx context.Context, _ int) error {
			k := key()
			_, err := client.Txn(ctx).
				If(clientv3.Compare(clientv3.Version(k), ">", 0)).
				Then(clientv3.OpPut(k, value), clientv3.OpGet(k)).
				Else(clientv3.OpPut(k, value)).
				Commit()
			return err
		}, nil
	}
	return nil, fmt.Errorf("unknown -op %q", *operation)
}

func load(pool []*clientv3.Client) (*outcome, error) {
	value := strings.Repeat("v", *valueBytes)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var measuring, stopped atomic.Bool
	var failures atomic.Int64
	latencies := make([][]time.Duration, *clients)
	var running sync.WaitGroup
	var firstErr atomic.Value
	for i := range *clients {
		do, err := request(pool[i%len(pool)], value)
		if err != nil {
			return nil, err
		}
		running.Go(func() {
			for turn := i; !stopped.Load(); turn++ {
				began := time.Now()
				err := do(ctx, turn)
				took := time.Since(began)
				switch {
				case stopped.Load():
				case err != nil:
					firstErr.CompareAndSwap(nil, err)
					if failures.Add(1) >= 100 {
						return
					}
				case measuring.Load():
					latencies[i] = append(latencies[i], took)
				}
			}
		})
	}
	time.Sleep(time.Duration(*warmupMs) * time.Millisecond)
	costs, err := readCosts()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	measuring.Store(true)
	time.Sleep(time.Duration(*windowMs) * time.Millisecond)
	stopped.Store(true)
	seconds := time.Since(began).Seconds()
	after, err := readCosts()
	if err != nil {
		return nil, err
	}
	cancel()
	running.Wait()
	if failures.Load() >= 100 {
		return nil, fmt.Errorf("100 requests failed, the first with: %v", firstErr.Load())
	}
	result := summary(slices.Concat(latencies...), seconds)
	result.Errors = failures.Load()
	result.ServerCPUMs = after.server - costs.server
	result.ClientCPUMs = after.client - costs.client
	return result, nil
}

const watchedKey = "bench/watched"

func watch(pool []*clientv3.Client) (*outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	// One signal per watcher and put; the room is for the watchers of one put.
	seen := make(chan error, *watchers)
	for i := range *watchers {
		events := pool[i%len(pool)].Watch(ctx, watchedKey, clientv3.WithCreatedNotify())
		go func() {
			for response := range events {
				if err := response.Err(); err != nil {
					seen <- err
					return
				}
				if response.Created {
					seen <- nil
				}
				for range response.Events {
					seen <- nil
				}
			}
		}()
	}
	all := func() error {
		for range *watchers {
			select {
			case err := <-seen:
				if err != nil {
					return err
				}
			case <-ctx.Done():
				return fmt.Errorf("not every watcher was served: %w", ctx.Err())
			}
		}
		return nil
	}
	if err := all(); err != nil {
		return nil, err
	}
	putter, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(*endpoint, ","), DialTimeout: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	defer putter.Close()
	value := strings.Repeat("v", *valueBytes)
	var latencies []time.Duration
	var costs cost
	var began time.Time
	// The first put warms up and is not counted.
	for number := range *puts + 1 {
		if number == 1 {
			if costs, err = readCosts(); err != nil {
				return nil, err
			}
			began = time.Now()
		}
		since := time.Now()
		if _, err := putter.Put(ctx, watchedKey, value); err != nil {
			return nil, err
		}
		if err := all(); err != nil {
			return nil, err
		}
		if number > 0 {
			latencies = append(latencies, time.Since(since))
		}
	}
	seconds := time.Since(began).Seconds()
	after, err := readCosts()
	if err != nil {
		return nil, err
	}
	result := summary(latencies, seconds)
	result.ServerCPUMs = after.server - costs.server
	result.ClientCPUMs = after.client - costs.client
	return result, nil
}

// summary computes exact percentiles: the smallest value that at least this share does not exceed.
func summary(latencies []time.Duration, seconds float64) *outcome {
	slices.Sort(latencies)
	at := func(perMille int) int64 {
		if len(latencies) == 0 {
			return 0
		}
		rank := (len(latencies)*perMille + 999) / 1000
		return latencies[max(rank-1, 0)].Microseconds()
	}
	return &outcome{
		Ops: len(latencies), Seconds: seconds,
		P50Us: at(500), P99Us: at(990), P999Us: at(999), MaxUs: at(1000),
	}
}

type cost struct{ server, client int64 }

func readCosts() (cost, error) {
	var costs cost
	var err error
	for text := range strings.SplitSeq(*serverPids, ",") {
		if text == "" {
			continue
		}
		pid, err := strconv.Atoi(text)
		if err != nil {
			return costs, err
		}
		ms, err := cpuMs(pid)
		if err != nil {
			return costs, err
		}
		costs.server += ms
	}
	costs.client, err = cpuMs(os.Getpid())
	return costs, err
}

// cpuMs is the processor time of a process, all its threads together. The kernel counts in ticks of
// 10 ms on every Linux that Go supports.
func cpuMs(pid int) (int64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold spaces: fields are counted behind its end.
	_, rest, found := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is short", pid)
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return ticks * 10, nil
}
