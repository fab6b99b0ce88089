from django.urls import path

from . import views

app_name = "orders"

urlpatterns = [
    path("", views.product_list, name="products"),
    path("products/<slug:sku>/", views.product, name="product"),
    path("orders/<uuid:reference>/", views.order, name="order"),
]
