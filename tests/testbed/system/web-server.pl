# The look-alike's web service: GET /version answers the version, /health 200. It is Perl because
# perl-base is on every Debian machine and starts in some 10 ms with Socket alone.
# Usage: web-server PORT [ADDRESS]; the address is otherwise that of the host.
use strict;
use warnings;
use Socket;

our ($version, $behaviour);
my ($port, $address) = @ARGV;

if (!defined $address) {
    open(my $file, '<', '/etc/fleet-testbed/address') or die "web-server: /etc/fleet-testbed/address: $!\n";
    chomp($address = <$file>);
}

if ($behaviour eq 'dies-after-5s') {
    $SIG{ALRM} = sub { print STDERR "web-server: cannot allocate a greeting\n"; exit 1 };
    alarm 5;
} elsif ($behaviour eq 'crash-loop') {
    $SIG{ALRM} = sub { print STDERR "web-server: lost the greeting\n"; exit 1 };
    alarm 1;
}

socket(my $listener, PF_INET, SOCK_STREAM, 0) or die "web-server: socket: $!\n";
setsockopt($listener, SOL_SOCKET, SO_REUSEADDR, 1);
bind($listener, pack_sockaddr_in($port, inet_aton($address)))
    or die "web-server: cannot listen on $address:$port: $!\n";
listen($listener, 64) or die "web-server: listen: $!\n";

$SIG{PIPE} = 'IGNORE';
while (1) {
    accept(my $peer, $listener) or next;
    setsockopt($peer, SOL_SOCKET, SO_RCVTIMEO, pack('l!l!', 2, 0));
    my $request = '';
    while ($request !~ /\r?\n\r?\n/ && length($request) < 8192) {
        my $count = sysread($peer, $request, 4096, length $request);
        last unless $count;
    }
    my ($path) = $request =~ m{^\w+ (/\S*)};
    my %pages = ('/version' => "$version\n", '/health' => "ok\n", '/' => "greetings from $version\n");
    my ($status, $body) = ('404 Not Found', "no such page\n");
    ($status, $body) = ('200 OK', $pages{$path}) if defined $path && exists $pages{$path};
    ($status, $body) = ('500 Internal Server Error', "broken in $version\n") if $behaviour eq 'http-500';
    syswrite($peer, "HTTP/1.1 $status\r\nContent-Type: text/plain\r\nContent-Length: "
        . length($body) . "\r\nConnection: close\r\n\r\n$body");
    close($peer);
}
