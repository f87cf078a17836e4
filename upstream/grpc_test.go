package upstream_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/merlon-dev/merlon/upstream"
)

type healthServer struct {
	healthpb.UnimplementedHealthServer
}

func (healthServer) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-client", strings.Join(md["x-forwarded-for"], "|")))
	if r.Service == "none" {
		return nil, status.Error(codes.NotFound, "unknown service")
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func (healthServer) Watch(r *healthpb.HealthCheckRequest, s healthpb.Health_WatchServer) error {
	for i := range 3 {
		if err := s.Send(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_ServingStatus(i)}); err != nil {
			return err
		}
	}
	if r.Service == "fails" {
		return status.Error(codes.DataLoss, "half way")
	}
	return nil
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	healthpb.RegisterHealthServer(srv, healthServer{})
	go func() { _ = srv.Serve(l) }()
	defer srv.Stop()
	tlsBackend := httptest.NewUnstartedServer(srv)
	tlsBackend.EnableHTTP2 = true
	ca, files := newCA(t), t.TempDir()
	tlsBackend.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1", false)}, NextProtos: []string{"h2"}}
	tlsBackend.StartTLS()
	defer tlsBackend.Close()

	for name, c := range map[string]upstream.Config{
		"h2c": {To: []string{"h2c://" + l.Addr().String()}},
		"h2":  {To: []string{tlsBackend.URL}, TLS: upstream.TLS{CA: ca.file(t, files)}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, c, setup{h2: true})
			roots := x509.NewCertPool()
			roots.AddCert(f.Certificate())
			conn, err := grpc.NewClient(f.Listener.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "example.com"})))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			client := healthpb.NewHealthClient(conn)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			var trailer metadata.MD
			res, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Trailer(&trailer))
			if err != nil || res.Status != healthpb.HealthCheckResponse_SERVING || strings.Join(trailer["x-client"], "") != "127.0.0.1" {
				t.Error(res, err, trailer)
			}
			if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "none"}); status.Code(err) != codes.NotFound {
				t.Error(err)
			}
			stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{Service: "fails"})
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; ; i++ {
				m, err := stream.Recv()
				if err != nil {
					if i != 3 || status.Code(err) != codes.DataLoss {
						t.Error(i, err)
					}
					break
				}
				if int(m.Status) != i {
					t.Error(m)
				}
			}
		})
	}
}
