package gateway

import (
	"context"
	"net/url"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/merlon-dev/merlon"
)

// A Tracer sends one span per request over OTLP/HTTP. Each is the root of a new
// trace: what a client says about traces is not believed, and the upstream is
// told ours. The methods do nothing on a nil Tracer.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// NewTracer returns a tracer that sends to endpoint, such as
// "http://127.0.0.1:4318". End it with [Tracer.Close].
func NewTracer(ctx context.Context, endpoint, version string) (*Tracer, error) {
	target, err := tracesURL(endpoint)
	if err != nil {
		return nil, err
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(target))
	if err != nil {
		return nil, err
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(resource.NewSchemaless(
		attribute.String("service.name", "merlon"), attribute.String("service.version", version))))
	return &Tracer{p, p.Tracer("github.com/merlon-dev/merlon")}, nil
}

// tracesURL completes a collector's base address, as the OTLP specification
// has it.
func tracesURL(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", merlon.BadSetting("telemetry.traces", endpoint, "must be an address such as http://127.0.0.1:4318")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}

// Close sends what waits.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

func (t *Tracer) start(r *merlon.Request) (end func(merlon.Outcome)) {
	if t == nil {
		return func(merlon.Outcome) {}
	}
	ctx, span := t.tracer.Start(r.Context(), r.Method+" "+r.Site+r.Route,
		trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(r.Received))
	r.Request = r.Request.WithContext(ctx)
	return func(o merlon.Outcome) {
		span.SetAttributes(
			attribute.String("http.request.method", r.Method),
			attribute.String("server.address", r.Site),
			attribute.String("http.route", r.Route),
			attribute.String("client.address", r.Client.String()),
			attribute.Int("http.response.status_code", o.Status),
			attribute.String("merlon.request_id", r.ID))
		for _, v := range r.Verdicts() {
			span.AddEvent(v.Guard, trace.WithAttributes(
				attribute.String("effect", v.Decision.Effect.String()),
				attribute.String("reason", string(v.Decision.Reason)),
				attribute.Bool("monitored", v.Decision.Monitored),
				attribute.Bool("shadow", v.Decision.Shadow)))
		}
		if o.Status >= 500 {
			span.SetStatus(codes.Error, o.Guard)
		}
		span.End()
	}
}

func (t *Tracer) inject(r *merlon.Request) {
	if t != nil {
		propagation.TraceContext{}.Inject(r.Context(), propagation.HeaderCarrier(r.Header))
	}
}
