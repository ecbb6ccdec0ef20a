# Packages first: they change less often than the code.
FROM python:3.12-slim AS packages
COPY requirements/production.txt /tmp/
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes -r /tmp/production.txt

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home countinghouse \
    && install -d -o countinghouse /var/lib/countinghouse/media
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_ENV=production \
    DJANGO_SETTINGS_MODULE=config.settings \
    MEDIA_ROOT=/var/lib/countinghouse/media
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY manage.py pyproject.toml ./
COPY config config
COPY payments payments
COPY fraud fraud
COPY reconciliation reconciliation
COPY webhooks webhooks
COPY templates templates
COPY docs/oncall.md docs/
# collectstatic reads settings, not servers: these values live for one command and are in no layer.
RUN SECRET_KEY=build ENCRYPTION_KEYS=build ALLOWED_HOSTS=build \
    DATABASE_URL=postgresql://build/build REDIS_URL=redis://build \
    python manage.py collectstatic --noinput
USER countinghouse
EXPOSE 8000
# The Host header must be one that the site answers to.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", "\
import http.client, os; \
host = os.environ['ALLOWED_HOSTS'].split(',')[0].lstrip('*.') or 'localhost'; \
site = http.client.HTTPConnection('127.0.0.1', 8000, timeout=2); \
site.request('GET', '/healthz', headers={'Host': host}); \
raise SystemExit(site.getresponse().status != 200)"]
# The check refuses to start what lacks a saga definition that live runs still need.
CMD ["sh", "-c", "python manage.py check --database default && exec gunicorn config.wsgi --bind 0.0.0.0:8000 --workers 2 --worker-class gthread --threads 8 --no-control-socket --worker-tmp-dir /dev/shm --access-logfile -"]
