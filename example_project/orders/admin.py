from django.contrib import admin

from .models import Order, OrderLine, Payment, Product, Shipment, Stock


class StockInline(admin.StackedInline):
    model = Stock
    readonly_fields = ["reserved"]
    min_num = 1


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    list_display = ["sku", "name", "price", "available"]
    list_select_related = ["stock"]
    search_fields = ["sku", "name"]
    inlines = [StockInline]

    @admin.display(ordering="stock__on_hand")
    def available(self, product):
        return product.stock.available if hasattr(product, "stock") else None


class Written(admin.TabularInline):
    """Written by the workflow; people look."""

    extra = 0
    can_delete = False

    def has_add_permission(self, request, obj=None):
        return False

    def has_change_permission(self, request, obj=None):
        return False


class OrderLineInline(Written):
    model = OrderLine


class PaymentInline(Written):
    model = Payment


class ShipmentInline(Written):
    model = Shipment


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["id", "status", "email", "postcode", "workflow_id", "problem", "created_at"]
    list_filter = ["status"]
    search_fields = ["id", "email", "reference"]
    date_hierarchy = "created_at"
    readonly_fields = ["reference", "status", "problem", "workflow_id", "card", "created_at"]
    inlines = [OrderLineInline, PaymentInline, ShipmentInline]

    def has_add_permission(self, request):
        return False  # an order added by hand would have no workflow


@admin.register(Payment)
class PaymentAdmin(admin.ModelAdmin):
    list_display = ["charge_id", "order", "amount", "status"]
    list_filter = ["status"]
    list_select_related = ["order"]


@admin.register(Shipment)
class ShipmentAdmin(admin.ModelAdmin):
    list_display = ["tracking_code", "order", "shipped_at"]
    list_select_related = ["order"]
    date_hierarchy = "shipped_at"
