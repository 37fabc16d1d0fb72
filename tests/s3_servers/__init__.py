"""S3 servers for tests and benchmarks, all on loopback.

- `moto_server`: a moto server, atomic, that imitates the abilities of real servers.
- `fault_proxy`: an HTTP proxy that loses replies, resets connections, duplicates requests.
- `latency_proxy`: a TCP proxy that adds a round trip time.
- `canned`: a fast, small S3 server for benchmarks.
- `localstack`: LocalStack's S3, a real and atomic implementation.
- `quirks` and `wire`: how servers differ, as data; what each answers to conditions.
- `clients`: boto3 clients for any of them.
- `fixtures`: those that many tests share, as pytest fixtures.
"""
