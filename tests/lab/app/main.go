// Command labapp is the application of the lab: a gRPC server whose behavior the metadata of each call controls, and a client
// that makes calls and prints the results as JSON.
//
//	labapp serve --port 7070 --name echo-v1-abc --version v1
//	labapp call --count 100 --header x-status=14 --header x-status-in=trailers echo.shop.svc.cluster.local:7070
//
// Metadata: x-status (a status number), x-status-in (headers or trailers: whether a reply precedes the status), x-delay (such as
// 300ms; ends at the deadline of the call), x-hang (the same, but ignores the deadline), x-count (messages of a stream).
// x-version restricts failures to servers of that version, x-percent to a percentage of calls.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func main() {
	if len(os.Args) < 2 {
		fail("usage: labapp serve|call …")
	}
	switch os.Args[1] {
	case "serve":
		serve(os.Args[2:])
	case "call":
		call(os.Args[2:])
	default:
		fail("usage: labapp serve|call …")
	}
}

func fail(text string) {
	fmt.Fprintln(os.Stderr, "labapp: "+text)
	os.Exit(2)
}

// ---- the server ----

type server struct {
	name, version string
	calls         atomic.Int64
}

type echo interface{}

func serve(arguments []string) {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	port := flags.Int("port", 7070, "gRPC port")
	httpPort := flags.Int("http-port", 0, "HTTP/1.1 port; 0 is none")
	name := flags.String("name", hostname(), "server id in each reply")
	version := flags.String("version", "", "version in each reply")
	maxAge := flags.Duration("max-connection-age", 0, "close connections of this age; 0 is never")
	grace := flags.Duration("max-connection-age-grace", 0, "then wait so long for calls that run")
	idle := flags.Duration("max-connection-idle", 0, "close connections that are idle so long; 0 is never")
	_ = flags.Parse(arguments)

	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", *port))
	if err != nil {
		fail(err.Error())
	}
	var options []grpc.ServerOption
	if *maxAge > 0 || *idle > 0 {
		options = append(options, grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: *maxAge, MaxConnectionAgeGrace: *grace, MaxConnectionIdle: *idle,
		}))
	}
	s := &server{name: *name, version: *version}
	g := grpc.NewServer(options...)
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "lab.Echo",
		HandlerType: (*echo)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Unary", Handler: s.unary},
			{MethodName: "Other", Handler: s.unary},
		},
		Streams: []grpc.StreamDesc{
			{StreamName: "Stream", Handler: s.stream, ServerStreams: true, ClientStreams: true},
		},
	}, s)
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	if *httpPort > 0 {
		go func() {
			_ = http.ListenAndServe(fmt.Sprintf(":%d", *httpPort), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprintln(w, s.reply())
			}))
		}()
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-ended; g.GracefulStop() }()
	if err := g.Serve(listener); err != nil {
		fail(err.Error())
	}
}

func hostname() string {
	name, _ := os.Hostname()
	return name
}

func (s *server) reply() string {
	text, _ := json.Marshal(map[string]string{"server": s.name, "version": s.version})
	return string(text)
}

// What the metadata of a call requests.
type wish struct {
	code     codes.Code
	trailers bool
	delay    time.Duration
	hang     time.Duration
	count    int
}

func (s *server) wishOf(ctx context.Context) wish {
	in, _ := metadata.FromIncomingContext(ctx)
	first := func(key string) string {
		if values := in.Get(key); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	w := wish{count: 1, trailers: first("x-status-in") == "trailers"}
	if number, err := strconv.Atoi(first("x-status")); err == nil {
		w.code = codes.Code(number)
	}
	if percent, err := strconv.ParseInt(first("x-percent"), 10, 64); err == nil {
		if n := s.calls.Add(1); n*percent/100 == (n-1)*percent/100 {
			w.code = codes.OK
		}
	}
	if version := first("x-version"); version != "" && version != s.version {
		w.code = codes.OK
	}
	if delay, err := time.ParseDuration(first("x-delay")); err == nil {
		w.delay = delay
	}
	if hang, err := time.ParseDuration(first("x-hang")); err == nil {
		w.hang = hang
	}
	if count, err := strconv.Atoi(first("x-count")); err == nil {
		w.count = count
	}
	return w
}

func (w wish) wait(ctx context.Context) error {
	time.Sleep(w.hang)
	select {
	case <-time.After(w.delay):
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

func (s *server) unary(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	in := new(wrapperspb.StringValue)
	if err := decode(in); err != nil {
		return nil, err
	}
	w := s.wishOf(ctx)
	if err := w.wait(ctx); err != nil {
		return nil, err
	}
	if w.code != codes.OK {
		// Without a reply, the status is in the headers frame (trailers-only); after headers, it is in the trailers.
		if w.trailers {
			_ = grpc.SendHeader(ctx, metadata.Pairs("x-server", s.name))
		}
		return nil, status.Error(w.code, "as asked by "+s.name)
	}
	return wrapperspb.String(s.reply()), nil
}

func (s *server) stream(_ any, stream grpc.ServerStream) error {
	w := s.wishOf(stream.Context())
	for n := 0; n < w.count; n++ {
		if err := w.wait(stream.Context()); err != nil {
			return err
		}
		if err := stream.SendMsg(wrapperspb.String(s.reply())); err != nil {
			return err
		}
	}
	if w.code != codes.OK {
		return status.Error(w.code, "as asked by "+s.name)
	}
	return nil
}

// ---- the client ----

type pairs []string

func (p *pairs) String() string { return strings.Join(*p, ",") }
func (p *pairs) Set(text string) error {
	key, value, found := strings.Cut(text, "=")
	if !found {
		return fmt.Errorf("%q is not key=value", text)
	}
	*p = append(*p, key, value)
	return nil
}

// The result of one call.
type seen struct {
	Code    int    `json:"code"`
	Name    string `json:"name"`
	Message string `json:"message,omitempty"`
	Server  string `json:"server,omitempty"`
	Version string `json:"version,omitempty"`
	Millis  int64  `json:"millis"`
}

func call(arguments []string) {
	flags := flag.NewFlagSet("call", flag.ExitOnError)
	count := flags.Int("count", 1, "calls")
	parallel := flags.Int("parallel", 1, "calls at the same time")
	every := flags.Duration("every", 0, "pause between the starts of calls")
	timeout := flags.Duration("timeout", 10*time.Second, "deadline of each call; 0 is none")
	cancelAfter := flags.Duration("cancel-after", 0, "cancel each call after this time")
	method := flags.String("method", "/lab.Echo/Unary", "method; /lab.Echo/Stream streams")
	authority := flags.String("authority", "", ":authority to send")
	connections := flags.Int("connections", 1, "connections")
	var headers pairs
	flags.Var(&headers, "header", "metadata key=value (repeatable)")
	_ = flags.Parse(arguments)
	if flags.NArg() != 1 {
		fail("call needs one address")
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if *authority != "" {
		options = append(options, grpc.WithAuthority(*authority))
	}
	channels := make([]*grpc.ClientConn, *connections)
	for n := range channels {
		channel, err := grpc.NewClient("passthrough:///"+flags.Arg(0), options...)
		if err != nil {
			fail(err.Error())
		}
		channels[n] = channel
	}
	results := make(chan seen, *count)
	slots := make(chan struct{}, *parallel)
	var all sync.WaitGroup
	for n := range *count {
		slots <- struct{}{}
		all.Add(1)
		go func() {
			defer func() { <-slots; all.Done() }()
			ctx := metadata.AppendToOutgoingContext(context.Background(), headers...)
			if *timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, *timeout)
				defer cancel()
			}
			if *cancelAfter > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithCancel(ctx)
				time.AfterFunc(*cancelAfter, cancel)
				defer cancel()
			}
			results <- one(ctx, channels[n%len(channels)], *method)
		}()
		if *every > 0 {
			time.Sleep(*every)
		}
	}
	all.Wait()
	close(results)
	out := json.NewEncoder(os.Stdout)
	for result := range results {
		_ = out.Encode(result)
	}
}

func one(ctx context.Context, channel *grpc.ClientConn, method string) seen {
	start := time.Now()
	reply := new(wrapperspb.StringValue)
	var err error
	if strings.HasSuffix(method, "/Stream") {
		err = stream(ctx, channel, method, reply)
	} else {
		err = channel.Invoke(ctx, method, wrapperspb.String("hello"), reply)
	}
	s := status.Convert(err)
	result := seen{Code: int(s.Code()), Name: s.Code().String(), Message: s.Message(), Millis: time.Since(start).Milliseconds()}
	var from struct{ Server, Version string }
	if json.Unmarshal([]byte(reply.GetValue()), &from) == nil {
		result.Server, result.Version = from.Server, from.Version
	}
	return result
}

func stream(ctx context.Context, channel *grpc.ClientConn, method string, last *wrapperspb.StringValue) error {
	s, err := channel.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	if err := s.SendMsg(wrapperspb.String("hello")); err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	for {
		message := new(wrapperspb.StringValue)
		if err := s.RecvMsg(message); err != nil {
			if err.Error() == "EOF" {
				return nil
			}
			return err
		}
		last.Value = message.GetValue()
	}
}
